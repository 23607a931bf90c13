//! `/health`, `/livez` and `/readyz`, with etcd's checks and etcd's bytes.

use crate::http::{GetOnly, error, plain};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use std::fmt::Write;
use std::future::Future;
use tracing::{error, warn};

/// What the checks ask.
pub trait Subject: Clone + Send + Sync + 'static {
    /// The alarms that are raised, by etcd's names (`NOSPACE`, `CORRUPT`).
    fn alarms(&self) -> Vec<&'static str>;
    /// Whether a leader is known.
    fn has_leader(&self) -> bool;
    /// Whether this member has no vote yet.
    fn is_learner(&self) -> bool;
    /// Tries a read, of this member's state or one that needs a quorum.
    fn read(&self, linearizable: bool) -> impl Future<Output = Result<(), String>> + Send;
    /// Told of each check's result, for the metrics: the endpoint, the check, whether it passed.
    fn checked(&self, endpoint: &'static str, check: &'static str, passed: bool);
}

/// One named check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    LinearizableRead,
    NonLearner,
    SerializableRead,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
            Check::SerializableRead => "serializable_read",
        }
    }

    async fn run(self, subject: &impl Subject) -> Result<(), String> {
        match self {
            Check::DataCorruption if subject.alarms().contains(&"CORRUPT") => {
                Err("alarm activated: CORRUPT".into())
            }
            Check::NonLearner if subject.is_learner() => Err("not supported for learner".into()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::LinearizableRead => subject.read(true).await,
            Check::SerializableRead => subject.read(false).await,
        }
    }
}

/// An endpoint that runs checks.
#[derive(Clone, Copy)]
struct Endpoint {
    name: &'static str,
    checks: &'static [Check],
}

/// Alive: worth keeping. Failing means that a restart may help.
const LIVEZ: Endpoint = Endpoint {
    name: "livez",
    checks: &[Check::SerializableRead],
};
/// Ready: worth sending requests to.
const READYZ: Endpoint = Endpoint {
    name: "readyz",
    checks: &[
        Check::DataCorruption,
        Check::LinearizableRead,
        Check::NonLearner,
        Check::SerializableRead,
    ],
};

/// The routes.
pub fn routes<S: Subject>(subject: S) -> Router {
    let mut router = Router::new().route("/health", any(health::<S>));
    for endpoint in [LIVEZ, READYZ] {
        let all = move |_: GetOnly, State(subject): State<S>, RawQuery(query): RawQuery| async move {
            let query = query.unwrap_or_default();
            let excluded = values(&query, "exclude");
            let mut checks = endpoint.checks.to_vec();
            checks.retain(|check| !excluded.contains(&check.name()));
            answer(endpoint, &checks, subject, &query).await
        };
        router = router.route(&format!("/{}", endpoint.name), any(all));
        for check in endpoint.checks {
            let one = move |_: GetOnly, State(subject): State<S>, RawQuery(query): RawQuery| async move {
                answer(endpoint, &[*check], subject, &query.unwrap_or_default()).await
            };
            let path = format!("/{}/{}", endpoint.name, check.name());
            router = router.route(&path, any(one));
        }
    }
    router.with_state(subject)
}

async fn answer<S: Subject>(
    endpoint: Endpoint,
    checks: &[Check],
    subject: S,
    query: &str,
) -> Response {
    let mut report = String::new();
    let mut healthy = true;
    for check in checks {
        let result = check.run(&subject).await;
        subject.checked(endpoint.name, check.name(), result.is_ok());
        let _ = match result {
            Ok(()) => writeln!(report, "[+]{} ok", check.name()),
            Err(why) => {
                healthy = false;
                writeln!(report, "[-]{} failed: {why}", check.name())
            }
        };
    }
    if !healthy {
        error!(
            endpoint = endpoint.name,
            reason = report,
            "Health check error"
        );
        return error(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    if !has(query, "verbose") {
        report.clear();
    }
    report.push_str("ok\n");
    plain(StatusCode::OK, report)
}

/// The older endpoint: one verdict as JSON, over alarms, leader and a read.
async fn health<S: Subject>(
    _: GetOnly,
    State(subject): State<S>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let serializable = values(&query, "serializable").first() == Some(&"true");
    let excluded = values(&query, "exclude");
    let verdict = diagnose(&subject, serializable, &excluded).await;
    subject.checked("health", "health", verdict.is_ok());
    match verdict {
        Ok(()) => {
            let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            (headers, r#"{"health":"true","reason":""}"#).into_response()
        }
        Err(reason) => {
            let reason = serde_json::Value::from(reason);
            let output = format!(r#"{{"health":"false","reason":{reason}}}"#);
            warn!(output, status_code = 503, "/health error");
            error(StatusCode::SERVICE_UNAVAILABLE, &output)
        }
    }
}

async fn diagnose(
    subject: &impl Subject,
    serializable: bool,
    excluded: &[&str],
) -> Result<(), String> {
    let alarms = subject.alarms();
    if let Some(alarm) = alarms.iter().find(|alarm| !excluded.contains(alarm)) {
        return Err(format!("ALARM {alarm}"));
    }
    if !serializable && !subject.has_leader() {
        return Err("RAFT NO LEADER".into());
    }
    subject
        .read(!serializable)
        .await
        .map_err(|why| format!("RANGE ERROR:{why}"))
}

/// The values of a query's parameter. Names of checks and alarms need no escapes.
fn values<'a>(query: &'a str, name: &str) -> Vec<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value)
        .collect()
}

/// Whether a query has a parameter, with or without a value.
fn has(query: &str, name: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    #[derive(Clone, Default)]
    struct Patient {
        alarms: Vec<&'static str>,
        leaderless: bool,
        learner: bool,
    }

    impl Subject for Patient {
        fn alarms(&self) -> Vec<&'static str> {
            self.alarms.clone()
        }
        fn has_leader(&self) -> bool {
            !self.leaderless
        }
        fn is_learner(&self) -> bool {
            self.learner
        }
        async fn read(&self, linearizable: bool) -> Result<(), String> {
            if linearizable && self.leaderless {
                return Err("etcdserver: no leader".into());
            }
            Ok(())
        }
        fn checked(&self, _: &'static str, _: &'static str, _: bool) {}
    }

    async fn ask(patient: &Patient, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).expect("a valid request");
        let router = routes(patient.clone()).fallback(crate::http::not_found);
        let response = router.oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("small");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn get(patient: &Patient, path: &str) -> (u16, String) {
        ask(patient, Method::GET, path).await
    }

    #[tokio::test]
    async fn a_healthy_member_answers_as_etcd_does() {
        let patient = Patient::default();
        let ok = (200, "ok\n".to_owned());
        let healthy = (200, "{\"health\":\"true\",\"reason\":\"\"}".to_owned());
        assert_eq!(get(&patient, "/health").await, healthy);
        assert_eq!(get(&patient, "/livez").await, ok);
        assert_eq!(get(&patient, "/readyz").await, ok);
        assert_eq!(get(&patient, "/readyz/linearizable_read").await, ok);
        assert_eq!(
            get(&patient, "/livez?verbose").await,
            (200, "[+]serializable_read ok\nok\n".to_owned())
        );
        assert_eq!(get(&patient, "/readyz/nonsense").await.0, 404);
        assert_eq!(get(&patient, "/readyz?exclude=nonsense").await, ok);
        assert_eq!(
            ask(&patient, Method::POST, "/health").await,
            (405, "Method Not Allowed\n".to_owned())
        );
    }

    #[tokio::test]
    async fn without_a_leader_only_local_checks_pass() {
        let patient = Patient {
            leaderless: true,
            ..Patient::default()
        };
        assert_eq!(
            get(&patient, "/health").await,
            (
                503,
                "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n".to_owned()
            )
        );
        assert_eq!(get(&patient, "/health?serializable=true").await.0, 200);
        assert_eq!(get(&patient, "/livez").await.0, 200);
        assert_eq!(
            get(&patient, "/readyz").await,
            (
                503,
                "[+]data_corruption ok\n\
                 [-]linearizable_read failed: etcdserver: no leader\n\
                 [+]non_learner ok\n\
                 [+]serializable_read ok\n\n"
                    .to_owned()
            )
        );
        assert_eq!(
            get(&patient, "/readyz?exclude=linearizable_read").await.0,
            200
        );
    }

    #[tokio::test]
    async fn alarms_and_learners_are_not_ready() {
        let patient = Patient {
            alarms: vec!["NOSPACE", "CORRUPT"],
            learner: true,
            ..Patient::default()
        };
        let (status, body) = get(&patient, "/health?exclude=NOSPACE").await;
        assert_eq!(
            (status, body.as_str()),
            (503, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n")
        );
        let all = "/health?exclude=NOSPACE&exclude=CORRUPT";
        assert_eq!(get(&patient, all).await.0, 200);
        let (status, body) = get(&patient, "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"));
        assert!(body.contains("[-]non_learner failed: not supported for learner\n"));
    }
}
