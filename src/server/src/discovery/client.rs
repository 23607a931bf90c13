//! Asks a server of etcd v2's keys, one request a connection. Knows HTTP and JSON, and nothing of
//! what is discovered.

use crate::flags::value::{FlagValue, Kind};
use crate::paths;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use std::fmt::Display;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take, as to etcd; one that is waited for may take any time.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take over which something is waited for.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// After this long without a byte it is asked whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// No registry has more to say.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The port of a URL without one.
const HTTP_PORT: u16 = 80;

/// The code of etcd v2 for a key that is not there.
pub const KEY_NOT_FOUND: u64 = 100;
/// Its code for a key that must not be there, and is.
pub const KEY_EXISTS: u64 = 105;

/// Where something is on the web: an `http://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As it was given.
    pub text: String,
    host: String,
    port: u16,
    /// Clean, and without a slash at the end.
    path: String,
    query: Option<String>,
}

impl Place {
    /// Reads one; etcd would find out only when it connects, and then try for ever.
    fn parse(text: &str) -> Result<Place, String> {
        let uri: Uri = text
            .parse()
            .map_err(|why| format!("it is no URL ({why})"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("https:// asks for TLS, which comes with a later version".into());
            }
            Some(_) | None => return Err("its scheme must be http".into()),
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let clean = String::from_utf8(paths::clean(uri.path().as_bytes()));
        let path = clean.map_err(|_| "its path is no text")?;
        Ok(Place {
            text: text.to_owned(),
            host: host.ok_or("it names no host")?.to_owned(),
            port: uri.port_u16().unwrap_or(HTTP_PORT),
            path: path.trim_end_matches('/').to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }

    /// Reads a proxy's, which need not say `http://`.
    fn parse_proxy(text: &str) -> Result<Place, String> {
        if text.contains('@') {
            return Err("proxies that ask for a password are not used".into());
        }
        match text.contains("://") {
            true => Place::parse(text),
            false => Place::parse(&format!("http://{text}")),
        }
    }

    /// A URL below, without its host. `name` needs no escape.
    fn below(&self, name: &str, parameters: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        let own = self.query.as_deref().map(|query| format!("&{query}"));
        let own = own.unwrap_or_default();
        format!("{}{slash}{name}?{parameters}{own}", self.path)
    }
}

impl FlagValue for Option<Place> {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        (!text.is_empty()).then(|| Place::parse(text)).transpose()
    }
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy(Place);

impl FlagValue for Option<Proxy> {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        let proxy = (!text.is_empty()).then(|| Place::parse_proxy(text));
        Ok(proxy.transpose()?.map(Proxy))
    }
}

/// A node of etcd v2's, as JSON shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub key: String,
    pub value: String,
    pub nodes: Vec<Node>,
    pub created_index: u64,
    pub modified_index: u64,
}

impl Node {
    /// The last part of its key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// What a server answers when all is well.
#[derive(Debug)]
pub struct Listing {
    /// The store's index that it is of.
    pub index: u64,
    /// The node that was asked for, or that changed.
    pub node: Node,
}

/// Why there is no such answer, in the words of etcd's client.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody is there, or cannot answer now: worth trying again.
    #[error("client: etcd cluster is unavailable or misconfigured; error #0: {0}")]
    Unavailable(String),
    /// The server refuses it.
    #[error("{code}: {message} ({cause}) [{index}]")]
    Refused {
        code: u64,
        message: String,
        cause: String,
        index: u64,
    },
    /// Whoever answers knows no keys.
    #[error(
        "client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint"
    )]
    NoKeys,
    /// The answer takes too long.
    #[error("context deadline exceeded")]
    TooLate,
}

/// Asks below a place.
pub struct Client {
    place: Place,
    proxy: Option<Place>,
}

impl Client {
    pub fn new(place: &Place, proxy: Option<&Proxy>) -> Client {
        Client {
            place: place.clone(),
            proxy: proxy.map(|proxy| proxy.0.clone()),
        }
    }

    /// What is at `name`, or at the place itself where that is empty.
    pub async fn get(&self, name: &str) -> Result<Listing, CallError> {
        let target = self
            .place
            .below(name, "quorum=false&recursive=false&sorted=false");
        self.call(Method::GET, &target, String::new()).await
    }

    /// Gives `name` a value, if it has none.
    pub async fn create(&self, name: &str, value: &str) -> Result<Listing, CallError> {
        let target = self.place.below(name, "prevExist=false");
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        self.call(Method::PUT, &target, format!("value={value}"))
            .await
    }

    /// The first change of `name` since the store's index `from`, once it comes.
    pub async fn next_event(&self, name: &str, from: u64) -> Result<Node, CallError> {
        self.wait(name, from, false).await
    }

    /// The same of what is below the place.
    pub async fn next_event_below(&self, from: u64) -> Result<Node, CallError> {
        self.wait("", from, true).await
    }

    async fn wait(&self, name: &str, from: u64, recursive: bool) -> Result<Node, CallError> {
        let parameters = format!("recursive={recursive}&wait=true&waitIndex={from}");
        let target = self.place.below(name, &parameters);
        loop {
            let stream = timeout(CONNECT_MAX, self.connect()).await;
            let stream = stream.map_err(|_| unavailable("dial tcp: i/o timeout"))??;
            let answer = self.exchange(stream, Method::GET, &target, "".into());
            let answer = answer.await?;
            // A server that has waited long enough, or stops, ends the answer where it begins.
            if !(answer.status.is_success() && answer.body.is_empty()) {
                return Ok(self.understand(&answer)?.node);
            }
        }
    }

    async fn call(&self, method: Method, target: &str, form: String) -> Result<Listing, CallError> {
        let exchange = async {
            let stream = self.connect().await?;
            self.exchange(stream, method, target, form).await
        };
        let answer = timeout(ANSWER_MAX, exchange).await;
        self.understand(&answer.map_err(|_| CallError::TooLate)??)
    }

    async fn connect(&self) -> Result<TcpStream, CallError> {
        let next = self.proxy.as_ref().unwrap_or(&self.place);
        // An address of version 6 stands in brackets only in URLs.
        let host = next.host.trim_matches(['[', ']']);
        let connected = TcpStream::connect((host, next.port)).await;
        let stream = connected.map_err(unavailable)?;
        // What is waited for may be lost with a machine that says nothing any more.
        let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE);
        let kept = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        kept.map_err(unavailable)?;
        Ok(stream)
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        method: Method,
        target: &str,
        form: String,
    ) -> Result<Answer, CallError> {
        let request = self.request(method, target, form).map_err(unavailable)?;
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(unavailable)?;
        let answered = async move {
            let answer = sender.send_request(request).await;
            let (head, body) = answer.map_err(unavailable)?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let index = head.headers.get("x-etcd-index");
            let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
            Ok(Answer {
                status: head.status,
                index: index.unwrap_or_default(),
                body: body.map_err(unavailable)?.to_bytes(),
            })
        };
        // The connection ends with its sender; why it broke, the sender has been told.
        let (answer, _) = tokio::join!(answered, connection);
        answer
    }

    /// A proxy wants the whole URL.
    fn request(
        &self,
        method: Method,
        target: &str,
        form: String,
    ) -> hyper::http::Result<Request<Full<Bytes>>> {
        let host = format!("{}:{}", self.place.host, self.place.port);
        let uri = match self.proxy {
            Some(_) => format!("http://{host}{target}"),
            None => target.to_owned(),
        };
        Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))
    }

    fn understand(&self, answer: &Answer) -> Result<Listing, CallError> {
        let Place { host, port, .. } = &self.place;
        let member = format!("client: etcd member http://{host}:{port}");
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => {
                let told: Told = read(&answer.body)?;
                Ok(Listing {
                    index: answer.index,
                    node: told.node,
                })
            }
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => {
                Err(CallError::Unavailable(format!("{member} has no leader")))
            }
            status if status.is_server_error() => Err(CallError::Unavailable(format!(
                "{member} returns server error [{status}]"
            ))),
            _ => {
                let refusal: Refusal = read(&answer.body)?;
                Err(CallError::Refused {
                    code: refusal.error_code,
                    message: refusal.message,
                    cause: refusal.cause,
                    index: refusal.index,
                })
            }
        }
    }
}

fn unavailable(why: impl Display) -> CallError {
    CallError::Unavailable(why.to_string())
}

/// What came over the wire.
struct Answer {
    status: StatusCode,
    index: u64,
    body: Bytes,
}

#[derive(Deserialize)]
struct Told {
    node: Node,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    error_code: u64,
    message: String,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    index: u64,
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|_| CallError::NoKeys)
}

#[cfg(test)]
mod tests;
