//! Users and roles: `/v2/auth` and all below.
//!
//! They are those of every protocol. [`users`] and [`roles`] turn what is asked for into changes of
//! them, by what is there; [`pattern`] turns v2's patterns into spans of keys; [`login`] says who asks.

pub mod login;
mod message;
pub mod pattern;
mod refusal;
mod roles;
mod users;

use crate::Shared;
use crate::answer::{lone_message, not_allowed};
use crate::errors;
use crate::root::Root;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use gateway::Error;
use gateway::keyspace::auth::{
    Auth, AuthChange, AuthChanges, AuthRefusal, GUEST, Permission, ROOT,
};
use gateway::keyspace::{Command, Permissions, Principal, Refusal};
use percent_encoding::percent_decode_str;
use refusal::{INTERNAL, INVALID_JSON, INVALID_PATH, Refused, UNAUTHORIZED};
use std::sync::Arc;

/// A user or a role is small.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How often a change is chosen anew because others changed something meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// What a request is about.
enum Subject {
    Users,
    User(String),
    Roles,
    Role(String),
}

/// Changes that have been chosen, and what is said once they are made.
pub(crate) struct Plan {
    changes: Vec<AuthChange>,
    status: StatusCode,
    content: Vec<u8>,
}

impl Plan {
    /// Changes of which nothing is said.
    fn silent(changes: Vec<AuthChange>) -> Plan {
        Plan {
            changes,
            status: StatusCode::OK,
            content: Vec::new(),
        }
    }
}

/// Answers whether authentication is on, or switches it.
pub(crate) async fn enable(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let choose = match request.method().as_str() {
        "GET" => {
            let content = message::enabled(shared.gate.reader().auth().enabled());
            return shared.told(Ok((StatusCode::OK, content)));
        }
        "PUT" => switch_on,
        "DELETE" => switch_off,
        _ => return not_allowed("GET,PUT,DELETE"),
    };
    let root = &shared.options.root;
    let done = match shared.administrator(request.headers()).await {
        Ok(by) => shared.change(&by, |auth| choose(auth, root)).await,
        Err(refused) => Err(refused),
    };
    shared.told(done)
}

fn switch_on(auth: &Auth, root: &Root) -> Result<Plan, Refused> {
    if auth.enabled() {
        return Err(Refused::conflict("already enabled"));
    }
    if auth.user(ROOT).is_none() {
        return Err(Refused::conflict(
            "No root user available, please create one",
        ));
    }
    let mut changes = Vec::new();
    // Whoever names nobody goes on as before, until that is changed.
    if auth.role(GUEST).is_none() {
        changes.push(AuthChange::AddRole(GUEST.into()));
        changes.push(AuthChange::Permit {
            role: GUEST.into(),
            permission: Permission {
                span: pattern::everything(root),
                may: Permissions::READ | Permissions::WRITE,
            },
        });
    }
    changes.push(AuthChange::Enable);
    Ok(Plan::silent(changes))
}

fn switch_off(auth: &Auth, _: &Root) -> Result<Plan, Refused> {
    match auth.enabled() {
        true => Ok(Plan::silent(vec![AuthChange::Disable])),
        false => Err(Refused::conflict("already disabled")),
    }
}

/// Answers about users and roles, or changes them.
pub(crate) async fn manage(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(subject) = subject_of(request.uri().path()) else {
        return shared.told(Err(INVALID_PATH));
    };
    let methods = match subject {
        Subject::Users | Subject::Roles => "GET",
        Subject::User(_) | Subject::Role(_) => "GET,PUT,DELETE",
    };
    let method = request.method().clone();
    if !methods.split(',').any(|it| *it == *method.as_str()) {
        return not_allowed(methods);
    }
    let done = match shared.administrator(request.headers()).await {
        Ok(_) if method == Method::GET => shared.look(&subject),
        Ok(by) if method == Method::PUT => shared.put(&by, &subject, request.into_body()).await,
        Ok(by) => shared.delete(&by, &subject).await,
        Err(refused) => Err(refused),
    };
    shared.told(done)
}

/// What a path below `/v2/auth` is about. It is clean.
fn subject_of(path: &str) -> Option<Subject> {
    let path = percent_decode_str(path).decode_utf8_lossy();
    let mut parts = path.strip_prefix("/v2/auth/")?.split('/');
    let sort = parts.next()?;
    let name = parts.next().filter(|name| !name.is_empty());
    if parts.any(|part| !part.is_empty()) {
        return None;
    }
    match (sort, name) {
        ("users", None) => Some(Subject::Users),
        ("users", Some(name)) => Some(Subject::User(name.to_owned())),
        ("roles", None) => Some(Subject::Roles),
        ("roles", Some(name)) => Some(Subject::Role(name.to_owned())),
        _ => None,
    }
}

type Done = Result<(StatusCode, Vec<u8>), Refused>;

impl Shared {
    /// Who asks, if that is one who may manage users and roles.
    pub(crate) async fn administrator(&self, headers: &HeaderMap) -> Result<Principal, Refused> {
        let by = login::who(&self.gate, headers).await?;
        let by = by.ok_or(UNAUTHORIZED)?;
        let checked = self.gate.reader().check_root(&by);
        checked.map(|()| by).map_err(|_| UNAUTHORIZED)
    }

    fn look(&self, subject: &Subject) -> Done {
        let auth = self.gate.reader().auth();
        let root = &self.options.root;
        let content = match subject {
            Subject::Users => users::all(&auth, root)?,
            Subject::User(name) => users::one(&auth, name, root)?,
            Subject::Roles => roles::all(&auth, root)?,
            Subject::Role(name) => roles::one(&auth, name, root)?,
        };
        Ok((StatusCode::OK, content))
    }

    async fn put(&self, by: &Principal, subject: &Subject, body: Body) -> Done {
        let body = to_bytes(body, BODY_BYTES_MAX).await;
        let body = body.map_err(|_| INVALID_JSON)?;
        match subject {
            Subject::User(name) => {
                let asked = users::Asked::parse(name, &body)?;
                let hash = match asked.password() {
                    "" => None,
                    password => Some(self.gate.hash_password(password.into()).await?),
                };
                self.change(by, |auth| asked.plan(auth, hash.as_deref()))
                    .await
            }
            Subject::Role(name) => {
                let asked = roles::Asked::parse(name, &body)?;
                self.change(by, |auth| asked.plan(auth, &self.options.root))
                    .await
            }
            Subject::Users | Subject::Roles => unreachable!("only single ones are put"),
        }
    }

    async fn delete(&self, by: &Principal, subject: &Subject) -> Done {
        match subject {
            Subject::User(name) => self.change(by, |auth| users::delete(auth, name)).await,
            Subject::Role(name) => self.change(by, |auth| roles::delete(auth, name)).await,
            Subject::Users | Subject::Roles => unreachable!("only single ones are deleted"),
        }
    }

    /// Makes the changes that `choose` finds for what is there, which nothing must have changed until
    /// they are made.
    async fn change(
        &self,
        by: &Principal,
        choose: impl Fn(&Auth) -> Result<Plan, Refused>,
    ) -> Done {
        for _ in 0..ATTEMPTS_MAX {
            self.gate.linearize().await?;
            let auth = self.gate.reader().auth();
            let plan = choose(&auth)?;
            let command = Command::Auth(AuthChanges {
                at: Some(auth.revision()),
                changes: plan.changes,
                ..AuthChanges::default()
            });
            match self.gate.propose(by, command).await {
                Err(Error::Refused(Refusal::Auth(AuthRefusal::Overtaken))) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok((plan.status, plan.content)),
            }
        }
        Err(INTERNAL)
    }

    fn told(&self, done: Done) -> Response {
        match done {
            Ok((status, content)) => self.json(status, content),
            Err(refused) => self.refuse(&refused),
        }
    }

    /// What was not done. Some of it is told before etcd says which cluster it is.
    pub(crate) fn refuse(&self, refused: &Refused) -> Response {
        match *refused == UNAUTHORIZED || *refused == INVALID_PATH {
            true => lone_message(refused.status, &refused.message),
            false => self.message(refused.status, &refused.message),
        }
    }

    /// Who asks for keys.
    pub(crate) async fn who(&self, headers: &HeaderMap) -> Result<Principal, errors::Error> {
        let who = login::who(&self.gate, headers).await?;
        who.ok_or_else(errors::Error::unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EtcdV2, Options};
    use gateway::{Gate, Hub, Limits};
    use std::cell::{Cell, RefCell};

    /// Whoever always comes between gets an answer in the end.
    #[tokio::test]
    async fn a_change_that_is_overtaken_again_and_again_is_given_up() {
        let hub = Hub::new();
        let replica = replica::start_in_memory(replica::Config::default(), hub.sink()).await;
        let replica = replica.expect("nothing is on the disk that could be wrong");
        let gate = Gate::new(replica.clone(), hub, Limits::default());
        gate.led().await;
        let shared = EtcdV2::new(gate.clone(), Options::default()).shared;
        let add = |nth: usize| AuthChange::AddRole(format!("r{nth}").into());
        for (overtaken, done) in [(ATTEMPTS_MAX - 1, true), (ATTEMPTS_MAX, false)] {
            let attempts = Cell::new(0);
            // Nobody needs their answers, but without anyone who waits they would not be made.
            let ahead = RefCell::new(Vec::new());
            let choose = |_: &Auth| {
                let attempt = attempts.replace(attempts.get() + 1);
                if attempt < overtaken {
                    let change = Command::Auth(AuthChanges {
                        changes: vec![add(overtaken * 100 + attempt)],
                        ..AuthChanges::default()
                    });
                    ahead
                        .borrow_mut()
                        .push(gate.submit(&Principal::System, vec![change]));
                }
                Ok(Plan::silent(vec![add(overtaken)]))
            };
            let changed = shared.change(&Principal::System, choose).await;
            assert_eq!(changed.is_ok(), done);
            assert_eq!(attempts.get(), ATTEMPTS_MAX);
        }
        replica.stop().await;
    }
}
