//! Why users and roles are not shown or changed, in etcd v2's words (etcdserver/api/v2auth/auth.go).

use axum::http::StatusCode;
use gateway::keyspace::Refusal;
use gateway::keyspace::auth::AuthRefusal;
use gateway::{Error, Unavailable};
use std::borrow::Cow;

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP's status.
    pub status: StatusCode,
    /// What is said.
    pub message: Cow<'static, str>,
}

/// What etcd says of whatever it has no words for.
pub const INTERNAL: Refused = fixed(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
/// Who may not, or is not whom it says.
pub const UNAUTHORIZED: Refused = fixed(StatusCode::UNAUTHORIZED, "Insufficient credentials");
/// A path with too many parts.
pub const INVALID_PATH: Refused = fixed(StatusCode::BAD_REQUEST, "Invalid path");
/// A body that cannot be read.
pub const INVALID_JSON: Refused = fixed(StatusCode::BAD_REQUEST, "Invalid JSON in request body.");

const fn fixed(status: StatusCode, message: &'static str) -> Refused {
    Refused {
        status,
        message: Cow::Borrowed(message),
    }
}

impl Refused {
    /// A request that contradicts itself.
    pub const fn of_request(message: &'static str) -> Refused {
        fixed(StatusCode::BAD_REQUEST, message)
    }

    /// One of the store of users and roles.
    pub fn of_store(status: StatusCode, message: impl AsRef<str>) -> Refused {
        Refused {
            status,
            message: format!("auth: {}", message.as_ref()).into(),
        }
    }

    /// One that what is there does not allow.
    pub fn conflict(message: impl AsRef<str>) -> Refused {
        Refused::of_store(StatusCode::CONFLICT, message)
    }

    /// What is not there.
    pub fn missing(message: impl AsRef<str>) -> Refused {
        Refused::of_store(StatusCode::NOT_FOUND, message)
    }

    /// What is never allowed.
    pub fn forbidden(message: impl AsRef<str>) -> Refused {
        Refused::of_store(StatusCode::FORBIDDEN, message)
    }
}

impl From<Unavailable> for Refused {
    fn from(_: Unavailable) -> Refused {
        INTERNAL
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Auth(refusal) => refusal.into(),
            // Who asked is somebody else by now.
            Refusal::Denied | Refusal::Unnamed | Refusal::Outdated => UNAUTHORIZED,
            Refusal::Alarmed(_) => INTERNAL,
            Refusal::KeyNotFound
            | Refusal::LeaseNotFound(_)
            | Refusal::LeaseExists(_)
            | Refusal::Compacted { compacted: _ }
            | Refusal::Future { newest: _ }
            | Refusal::Moved
            | Refusal::OutOfTurn
            | Refusal::Node { .. } => {
                unreachable!("users and roles are not refused so: {refusal}")
            }
        }
    }
}

impl From<AuthRefusal> for Refused {
    /// What etcd v2 would have let happen, or what nothing here leads to: the changes were chosen by
    /// what is there.
    fn from(refusal: AuthRefusal) -> Refused {
        match refusal {
            AuthRefusal::RootUnprivileged => Refused::conflict("Root user does not have root role"),
            AuthRefusal::RootNeeded => {
                Refused::forbidden("Cannot revoke root role from root user while auth is enabled.")
            }
            AuthRefusal::UserMissing => UNAUTHORIZED,
            AuthRefusal::TooLarge => Refused::of_request("User or role is too large"),
            AuthRefusal::UserNameEmpty
            | AuthRefusal::RoleNameEmpty
            | AuthRefusal::RootMissing
            | AuthRefusal::UserExists
            | AuthRefusal::RoleExists
            | AuthRefusal::RoleMissing
            | AuthRefusal::RoleNotGranted
            | AuthRefusal::PermissionNotGranted
            | AuthRefusal::NoKeys
            | AuthRefusal::Overtaken => INTERNAL,
        }
    }
}
