use super::*;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

fn place(text: &str) -> Place {
    Place::parse(text).expect("a place")
}

#[test]
fn a_place_is_a_clean_path_at_a_host() {
    for (text, host, port, target) in [
        (
            "http://d:4001/v2/keys/t",
            "d",
            4001,
            "/v2/keys/t/_config/size?x=y",
        ),
        (
            "http://d/v2/keys/t/",
            "d",
            80,
            "/v2/keys/t/_config/size?x=y",
        ),
        (
            "http://[::1]:1//a/./b/../t?u=v",
            "[::1]",
            1,
            "/a/t/_config/size?x=y&u=v",
        ),
        ("HTTP://u:p@d:1", "d", 1, "/_config/size?x=y"),
    ] {
        let read = place(text);
        assert_eq!((&*read.host, read.port), (host, port), "{text}");
        assert_eq!(read.below("_config/size", "x=y"), target, "{text}");
        assert_eq!(read.text, text);
    }
    assert_eq!(place("http://d/t").below("", "x=y"), "/t?x=y");
}

#[test]
fn what_is_no_place_is_refused() {
    for text in [
        "token",
        "ftp://d/t",
        "https://d/t",
        "http://",
        "http:///t",
        "http://d/ t",
        "//d/t",
    ] {
        assert!(Place::parse(text).is_err(), "{text}");
    }
    assert_eq!(Option::<Place>::parse(""), Ok(None));
}

#[test]
fn a_proxy_is_a_host_with_or_without_http() {
    for text in ["http://p:3128", "p:3128"] {
        let proxy = Option::<Proxy>::parse(text).expect("a proxy").expect("one");
        assert_eq!((&*proxy.0.host, proxy.0.port), ("p", 3128));
    }
    for text in ["https://p:1", "socks5://p:1", "http://u:p@p:1"] {
        assert!(Option::<Proxy>::parse(text).is_err(), "{text}");
    }
    assert_eq!(Option::<Proxy>::parse(""), Ok(None));
}

/// Answers one connection with `answer`, and tells what it was asked.
async fn answering(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody connects");
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.expect("a request");
        request.truncate(read);
        // A client that has enough closes before it has all.
        let _ = stream.write_all(&answer).await;
        String::from_utf8(request).expect("text")
    });
    (address, asked)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nX-Etcd-Index: 7\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

async fn get(answer: Vec<u8>) -> Result<Listing, CallError> {
    let (address, _) = answering(answer).await;
    let client = Client::new(&place(&format!("http://{address}/t")), None);
    client.get("").await
}

#[tokio::test]
async fn an_answer_is_read_with_its_index() {
    let body = r#"{"action":"get","node":{"key":"/t","dir":true,"nodes":[
        {"key":"/t/a","value":"n=http://n:1","modifiedIndex":5,"createdIndex":4}],"createdIndex":3}}"#;
    let listing = get(http("200 OK", body)).await.expect("an answer");
    assert_eq!(listing.index, 7);
    let [node] = &listing.node.nodes[..] else {
        panic!("one node in {listing:?}");
    };
    assert_eq!((node.name(), &*node.value), ("a", "n=http://n:1"));
    assert_eq!((node.created_index, node.modified_index), (4, 5));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let refused = r#"{"errorCode":100,"message":"Key not found","cause":"/t","index":7}"#;
    for (answer, expected) in [
        (
            http("404 Not Found", refused),
            "100: Key not found (/t) [7]",
        ),
        (
            http("404 Not Found", "404 page not found"),
            "client: response is invalid json.",
        ),
        (
            http("200 OK", "<html>"),
            "client: response is invalid json.",
        ),
        (http("301 Moved", ""), "client: response is invalid json."),
        (http("503 Service Unavailable", ""), "has no leader"),
        (
            http("502 Bad Gateway", ""),
            "returns server error [502 Bad Gateway]",
        ),
        (
            b"garbage\r\n\r\n".to_vec(),
            "client: etcd cluster is unavailable",
        ),
        (Vec::new(), "client: etcd cluster is unavailable"),
    ] {
        let said = get(answer).await.expect_err(expected).to_string();
        assert!(said.contains(expected), "{said}, not {expected}");
    }
}

#[tokio::test]
async fn an_answer_without_bounds_is_cut_off() {
    let body = "x".repeat(2 * ANSWER_BYTES_MAX);
    let refused = get(http("200 OK", &body)).await.expect_err("too much");
    assert!(matches!(refused, CallError::Unavailable(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let client = Client::new(&place(&format!("http://{address}/t")), None);
    let refused = client.get("").await.expect_err("nobody answers");
    assert!(matches!(refused, CallError::TooLate), "{refused}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_whole_url() {
    let (address, asked) = answering(http("201 Created", r#"{"node":{}}"#)).await;
    let proxy = Option::<Proxy>::parse(&address.to_string()).expect("a proxy");
    let client = Client::new(&place("http://nowhere.invalid/t?u=v"), proxy.as_ref());
    client.create("a", "n=http://n:1").await.expect("an answer");
    let asked = asked.await.expect("asked").to_ascii_lowercase();
    let line = "put http://nowhere.invalid:80/t/a?prevexist=false&u=v http/1.1\r\n";
    assert!(asked.starts_with(line), "{asked}");
    assert!(
        asked.contains("\r\nhost: nowhere.invalid:80\r\n"),
        "{asked}"
    );
    assert!(
        asked.ends_with("\r\n\r\nvalue=n%3dhttp%3a%2f%2fn%3a1"),
        "{asked}"
    );
}

#[tokio::test]
async fn who_waits_asks_from_the_next_index() {
    let told = r#"{"action":"create","node":{"key":"/t/a","modifiedIndex":9}}"#;
    let (address, asked) = answering(http("200 OK", told)).await;
    let client = Client::new(&place(&format!("http://{address}/t")), None);
    let event = client.next_event_below(8).await.expect("an event");
    assert_eq!(event.modified_index, 9);
    let asked = asked.await.expect("asked");
    let line = "GET /t?recursive=true&wait=true&waitIndex=8 HTTP/1.1\r\n";
    assert!(asked.starts_with(line), "{asked}");
}
