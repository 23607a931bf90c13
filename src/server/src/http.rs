//! What the HTTP side of the ports has in common: telling gRPC from the rest, the guards against
//! browsers, and answers in the form of Go's `http` package, which clients and probes have come to
//! expect byte for byte.

use crate::backlog::{Backlog, Counted, Turn};
use crate::flags::value::Words;
use crate::listen::Handler;
use crate::metrics::calls::{Timed, Timings};
use crate::paths;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use etcd_v3::calls::{Kind, Method as Call};
use http_body_util::Either;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower::Service;

/// The content of an answer: of a gRPC call, or of anything else.
pub type Content = Counted<Either<tonic::body::Body, axum::body::Body>>;

/// What an HTTP/2 request for gRPC is given to.
pub trait Grpc:
    Service<
        Request<Incoming>,
        Response = hyper::Response<tonic::body::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Grpc for S where
    S: Service<
            Request<Incoming>,
            Response = hyper::Response<tonic::body::Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Who answers on a port: gRPC requests go to one side, all others to the other.
#[derive(Clone)]
pub struct Front<G> {
    /// None answers gRPC like any path that nobody serves.
    pub grpc: Option<G>,
    /// The rest.
    pub http: Router,
    /// Where the time of gRPC calls is noted, if it is.
    pub timings: Option<Arc<Timings>>,
    /// What the connection holds of its answers.
    pub held: Held,
}

/// A client that does not look at its streams may still make calls, so they are held apart.
#[derive(Clone, Default)]
pub struct Held {
    calls: Backlog,
    streams: Backlog,
}

impl<G: Grpc> Handler for Front<G> {
    fn for_connection(&self) -> Self {
        let held = Held {
            calls: self.held.calls.of_another(),
            streams: self.held.streams.of_another(),
        };
        Front {
            held,
            ..self.clone()
        }
    }
}

impl<G: Grpc> hyper::service::Service<Request<Incoming>> for Front<G> {
    type Response = hyper::Response<Content>;
    type Error = Infallible;
    type Future = Answer<G::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let turn = match streams(request.uri().path()) {
            true => None,
            false => Some(Turn::default()),
        };
        let backlog = match &turn {
            Some(_) => self.held.calls.clone(),
            None => self.held.streams.clone(),
        };
        let making = match &self.grpc {
            Some(grpc) if is_grpc(request.headers()) => {
                let timings = self.timings.as_ref();
                Making::Grpc {
                    timed: timings.and_then(|it| Timed::start(it, request.uri().path())),
                    future: grpc.clone().call(request),
                }
            }
            Some(_) | None => Making::Http {
                future: self.http.clone().call(request),
            },
        };
        Answer {
            turn,
            backlog,
            making,
        }
    }
}

/// Whether a call is answered bit by bit, for as long as its client wants.
fn streams(path: &str) -> bool {
    match Call::of(path).map(Call::kind) {
        Some(Kind::ServerStream | Kind::BidiStream) => true,
        Some(Kind::Unary) | None => false,
    }
}

pin_project! {
    /// An answer that waits for its turn, or is being made. Of a stream, each message has a turn.
    pub struct Answer<F> {
        turn: Option<Turn>,
        backlog: Backlog,
        #[pin]
        making: Making<F>,
    }
}

pin_project! {
    #[project = MakingProjection]
    enum Making<F> {
        Grpc { #[pin] future: F, timed: Option<Timed> },
        Http { #[pin] future: RouteFuture<Infallible> },
    }
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<hyper::Response<tonic::body::Body>, Infallible>>,
{
    type Output = Result<hyper::Response<Content>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(turn) = this.turn {
            ready!(turn.poll(this.backlog, context));
        }
        let answer = match this.making.project() {
            MakingProjection::Grpc { future, timed } => {
                let answer = ready!(future.poll(context));
                if let Some(timed) = timed.take() {
                    timed.finish();
                }
                answer.map(|response| response.map(Either::Left))
            }
            MakingProjection::Http { future } => {
                let answer = ready!(future.poll(context));
                answer.map(|response| response.map(Either::Right))
            }
        };
        let backlog = this.backlog.clone();
        Poll::Ready(answer.map(|response| {
            response.map(|body| match this.turn {
                Some(_) => Counted::whole(body, backlog),
                None => Counted::stream(body, backlog),
            })
        }))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Nothing but Go's answer to a path that nobody serves.
pub fn nothing() -> Router {
    Router::new().fallback(not_found)
}

/// Wraps the plain HTTP of a client port in etcd's guards against browsers: a page must not reach a
/// server on the local network under a name of its own (DNS rebinding), and other origins' pages
/// are let in only as allowed. Paths that are not clean go back.
pub fn guarded(http: Router, cors: Words, host_whitelist: Words) -> Router {
    let guard = Arc::new(Guard {
        cors,
        host_whitelist,
    });
    http.fallback(not_found)
        .layer(middleware::from_fn_with_state(guard, guard_request))
}

struct Guard {
    cors: Words,
    host_whitelist: Words,
}

async fn guard_request(
    State(guard): State<Arc<Guard>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let host = host_of(request.headers(), request.uri());
    if !guard.host_whitelist.allow(host) {
        tracing::warn!(
            host,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        return error(StatusCode::MISDIRECTED_REQUEST, &unknown_host(host));
    }
    let allowed = if guard.cors.allow("*") {
        Some(HeaderValue::from_static("*"))
    } else {
        let origin = request.headers().get(ORIGIN);
        origin
            .filter(|origin| origin.to_str().is_ok_and(|text| guard.cors.allow(text)))
            .cloned()
    };
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else if let Some(response) = paths::turn_back(request.method(), request.uri()) {
        response
    } else {
        next.run(request).await
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
    response
}

/// The host that a request names, without its port.
fn host_of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = named.or_else(|| Some(uri.authority()?.as_str()));
    let authority = authority.unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

fn unknown_host(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n"
    )
}

/// Go's `http.Error`: the text, a line feed, and a type that browsers do not guess about.
pub fn error(status: StatusCode, text: &str) -> Response {
    plain(status, format!("{text}\n"))
}

/// Plain text as Go's handlers send it.
pub fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, text.into()).into_response()
}

/// JSON as Go's handlers send it.
pub fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Go's answer to a path that nobody serves.
pub async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// Lets GET through alone. Axum's own refusal has no text, and would answer HEAD where etcd does
/// not.
pub struct GetOnly;

impl<S: Sync> FromRequestParts<S> for GetOnly {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<GetOnly, Response> {
        if parts.method == Method::GET {
            return Ok(GetOnly);
        }
        let mut refusal = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        let headers = refusal.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::any;
    use tower::ServiceExt;

    fn words(list: &[&str]) -> Words {
        Words(list.iter().map(|word| (*word).to_owned()).collect())
    }

    async fn ask(router: Router, headers: &[(&str, &str)], path: &str) -> (StatusCode, HeaderMap) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a valid request");
        let response = router.oneshot(request).await.expect("infallible");
        (response.status(), response.headers().clone())
    }

    fn site(cors: &[&str], hosts: &[&str]) -> Router {
        let router = Router::new().route("/here", any(|| async { "x" }));
        guarded(router, words(cors), words(hosts))
    }

    #[tokio::test]
    async fn unknown_hosts_are_sent_away() {
        let hosts = &["127.0.0.1", "good"];
        for (host, expected) in [
            ("good:2379", StatusCode::OK),
            ("127.0.0.1", StatusCode::OK),
            ("evil", StatusCode::MISDIRECTED_REQUEST),
        ] {
            let (status, _) = ask(site(&["*"], hosts), &[("host", host)], "/here").await;
            assert_eq!(status, expected, "{host}");
        }
        let (status, _) = ask(site(&["*"], &["*"]), &[("host", "evil")], "/here").await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn origins_are_echoed_only_where_allowed() {
        let origin_of = |headers: HeaderMap| headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
        let cors = &["http://a:1"];
        let (_, headers) = ask(site(cors, &[]), &[("origin", "http://a:1")], "/here").await;
        assert_eq!(
            origin_of(headers),
            Some(HeaderValue::from_static("http://a:1"))
        );
        let (_, headers) = ask(site(cors, &[]), &[("origin", "http://b:1")], "/here").await;
        assert_eq!(origin_of(headers), None);
        let (status, headers) = ask(site(&["*"], &[]), &[], "/nowhere").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(origin_of(headers), Some(HeaderValue::from_static("*")));
    }
}
