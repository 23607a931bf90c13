//! What can be changed about users and roles, and why it is refused.

use super::{Auth, Permission, Principal, ROOT, Role, User};
use crate::types::{End, Span};
use minicbor::{Decode, Encode};
use std::sync::Arc;
use thiserror::Error;

/// Most bytes that a role with its permissions may take: it is part of one record of a snapshot.
const ROLE_BYTES_MAX: u64 = 1 << 20;
/// The same of a user with the names of the roles, of which each change makes a new set.
const USER_BYTES_MAX: u64 = 64 << 10;

/// See [`crate::Command::Auth`].
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct AuthChanges {
    /// Who asks. While authentication is on, it has to have the role `root`.
    #[n(0)]
    pub principal: Principal,
    /// The [`Auth::revision`] by which the changes were chosen, if they are to be refused once
    /// anything is different.
    #[n(1)]
    pub at: Option<u64>,
    /// The changes; all or none.
    #[n(2)]
    pub changes: Vec<AuthChange>,
}

/// One change of users and roles. Passwords come as their hashes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AuthChange {
    /// Clients are judged from now on. Takes a user `root` that has the role `root`.
    #[n(0)]
    Enable,
    /// They are not.
    #[n(1)]
    Disable,
    /// Adds a user without roles.
    #[n(2)]
    AddUser {
        /// Who is not there yet.
        #[n(0)]
        user: Box<str>,
        /// The password's hash; none never logs in by password.
        #[n(1)]
        password: Option<Box<str>>,
    },
    /// Removes a user.
    #[n(3)]
    RemoveUser(#[n(0)] Box<str>),
    /// Gives a user another password; one that never logs in by password still does not.
    #[n(4)]
    SetPassword {
        /// Whose.
        #[n(0)]
        user: Box<str>,
        /// The password's hash.
        #[n(1)]
        password: Box<str>,
    },
    /// Gives a user a role. Not an error if it has it.
    #[n(5)]
    Grant {
        /// To whom.
        #[n(0)]
        user: Box<str>,
        /// Which role.
        #[n(1)]
        role: Box<str>,
        /// Even if there is no such role, so that it counts from when there is one. There never
        /// needs to be one called `root`.
        #[n(2)]
        ahead: bool,
    },
    /// Takes a role from a user.
    #[n(6)]
    Revoke {
        /// From whom.
        #[n(0)]
        user: Box<str>,
        /// Which role.
        #[n(1)]
        role: Box<str>,
    },
    /// Adds a role that permits nothing.
    #[n(7)]
    AddRole(#[n(0)] Box<str>),
    /// Removes a role, and takes it from all users.
    #[n(8)]
    RemoveRole(#[n(0)] Box<str>),
    /// Lets a role do this with a span; what it was permitted for just that span before, it is no
    /// more.
    #[n(9)]
    Permit {
        /// Which role.
        #[n(0)]
        role: Box<str>,
        /// What it may do, and where.
        #[n(1)]
        permission: Permission,
    },
    /// Takes what a role is permitted for just that span.
    #[n(10)]
    Forbid {
        /// Which role.
        #[n(0)]
        role: Box<str>,
        /// The span.
        #[n(1)]
        span: Span,
    },
}

impl AuthChange {
    /// Whether it may take space.
    pub fn grows(&self) -> bool {
        match self {
            AuthChange::AddUser { .. }
            | AuthChange::SetPassword { .. }
            | AuthChange::Grant { .. }
            | AuthChange::AddRole(_)
            | AuthChange::Permit { .. } => true,
            AuthChange::Enable
            | AuthChange::Disable
            | AuthChange::RemoveUser(_)
            | AuthChange::Revoke { .. }
            | AuthChange::RemoveRole(_)
            | AuthChange::Forbid { .. } => false,
        }
    }
}

/// Why users and roles were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthRefusal {
    /// There is no user `root`.
    #[error("root user does not exist")]
    RootMissing,
    /// It has not the role `root`.
    #[error("root user does not have root role")]
    RootUnprivileged,
    /// The user `root`, or its role, has to stay while authentication is on.
    #[error("root is needed")]
    RootNeeded,
    /// A user needs a name.
    #[error("user name is empty")]
    UserNameEmpty,
    /// The user is there.
    #[error("user already exists")]
    UserExists,
    /// There is no such user.
    #[error("user not found")]
    UserMissing,
    /// A role needs a name.
    #[error("role name is empty")]
    RoleNameEmpty,
    /// The role is there.
    #[error("role already exists")]
    RoleExists,
    /// There is no such role.
    #[error("role not found")]
    RoleMissing,
    /// The user does not have the role.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role has no permission for that very span.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// The span has no keys.
    #[error("there are no such keys")]
    NoKeys,
    /// More roles or permissions than a user or a role can have.
    #[error("the user or role becomes too large")]
    TooLarge,
    /// Something else was changed meanwhile.
    #[error("users and roles have changed meanwhile")]
    Overtaken,
}

type Refused<T> = Result<T, AuthRefusal>;

impl Auth {
    /// Makes a change; whether it moves the revision: switching on does not, nor does what is so
    /// already (etcd's rules).
    pub(crate) fn change(&mut self, change: &AuthChange) -> Refused<bool> {
        match change {
            AuthChange::Enable => self.enable().map(|()| false),
            AuthChange::Disable => Ok(std::mem::replace(&mut self.enabled, false)),
            AuthChange::AddUser { user, password } => {
                let added = User {
                    password: password.clone(),
                    ..User::default()
                };
                self.add_user(user, added)
            }
            AuthChange::RemoveUser(user) => self.remove_user(user),
            AuthChange::SetPassword { user, password } => {
                let mut changed = self.expect_user(user)?;
                if let Some(before) = &mut changed.password {
                    before.clone_from(password);
                }
                self.put_user(user, Some(changed))
            }
            AuthChange::Grant { user, role, ahead } => self.grant(user, role, *ahead),
            AuthChange::Revoke { user, role } => self.revoke(user, role),
            AuthChange::AddRole(role) => self.add_role(role),
            AuthChange::RemoveRole(role) => self.remove_role(role),
            AuthChange::Permit { role, permission } => self.permit(role, permission),
            AuthChange::Forbid { role, span } => {
                let next = self.revision + 1;
                let changed = self.expect_role(role)?.without(span, next);
                let changed = changed.ok_or(AuthRefusal::PermissionNotGranted)?;
                self.put_role(role, Some(changed))
            }
        }
    }

    fn enable(&mut self) -> Refused<()> {
        if !self.enabled {
            let root = self.user(ROOT).ok_or(AuthRefusal::RootMissing)?;
            if !root.is_root() {
                return Err(AuthRefusal::RootUnprivileged);
            }
            self.enabled = true;
        }
        Ok(())
    }

    fn add_user(&mut self, name: &str, user: User) -> Refused<bool> {
        if name.is_empty() {
            return Err(AuthRefusal::UserNameEmpty);
        }
        if self.user(name).is_some() {
            return Err(AuthRefusal::UserExists);
        }
        self.put_user(name, Some(user))
    }

    fn remove_user(&mut self, name: &str) -> Refused<bool> {
        if self.enabled && name == ROOT {
            return Err(AuthRefusal::RootNeeded);
        }
        self.expect_user(name)?;
        self.put_user(name, None)
    }

    fn grant(&mut self, user: &str, role: &str, ahead: bool) -> Refused<bool> {
        let mut changed = self.expect_user(user)?;
        let name = self.roles.get_key_value(role);
        let name = name.map(|(name, _)| Arc::clone(name));
        if name.is_none() && role != ROOT && !ahead {
            return Err(AuthRefusal::RoleMissing);
        }
        if !changed.roles.insert(name.unwrap_or_else(|| role.into())) {
            return Ok(false);
        }
        self.put_user(user, Some(changed))
    }

    fn revoke(&mut self, user: &str, role: &str) -> Refused<bool> {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(AuthRefusal::RootNeeded);
        }
        let mut changed = self.expect_user(user)?;
        if !changed.roles.remove(role) {
            return Err(AuthRefusal::RoleNotGranted);
        }
        self.put_user(user, Some(changed))
    }

    fn add_role(&mut self, name: &str) -> Refused<bool> {
        if name.is_empty() {
            return Err(AuthRefusal::RoleNameEmpty);
        }
        if self.role(name).is_some() {
            return Err(AuthRefusal::RoleExists);
        }
        let next = self.revision + 1;
        self.put_role(name, Some(Role::new(next)))
    }

    fn remove_role(&mut self, name: &str) -> Refused<bool> {
        if self.enabled && name == ROOT {
            return Err(AuthRefusal::RootNeeded);
        }
        self.expect_role(name)?;
        let holders: Vec<Arc<str>> = self
            .users
            .iter()
            .filter(|(_, user)| user.roles.contains(name))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for holder in holders {
            let mut user = self.expect_user(&holder)?;
            user.roles.remove(name);
            self.put_user(&holder, Some(user))?;
        }
        self.put_role(name, None)
    }

    fn permit(&mut self, name: &str, permission: &Permission) -> Refused<bool> {
        let span = &permission.span;
        let is_empty = match &span.end {
            End::Single | End::Unbounded => false,
            End::Before(end) => *end <= span.start,
        };
        if is_empty {
            return Err(AuthRefusal::NoKeys);
        }
        let next = self.revision + 1;
        let changed = self.expect_role(name)?.with(span, permission.may, next);
        self.put_role(name, Some(changed))
    }

    fn expect_user(&self, name: &str) -> Refused<User> {
        self.user(name).cloned().ok_or(AuthRefusal::UserMissing)
    }

    fn expect_role(&self, name: &str) -> Refused<Role> {
        self.role(name).cloned().ok_or(AuthRefusal::RoleMissing)
    }

    /// Puts a user in place, or takes it away.
    pub(crate) fn put_user(&mut self, name: &str, user: Option<User>) -> Refused<bool> {
        let before = self.user(name).map_or(0, |user| user.cost(name));
        let after = user.as_ref().map_or(0, |user| user.cost(name));
        if after > USER_BYTES_MAX {
            return Err(AuthRefusal::TooLarge);
        }
        match user {
            Some(user) => self.users.insert(name.into(), Arc::new(user)),
            None => self.users.remove(name),
        };
        self.bytes = self.bytes - before + after;
        Ok(true)
    }

    /// Puts a role in place, or takes it away.
    pub(crate) fn put_role(&mut self, name: &str, role: Option<Role>) -> Refused<bool> {
        let before = self.role(name).map_or(0, |role| role.cost(name));
        let after = role.as_ref().map_or(0, |role| role.cost(name));
        if after > ROLE_BYTES_MAX {
            return Err(AuthRefusal::TooLarge);
        }
        match role {
            Some(role) => self.roles.insert(name.into(), Arc::new(role)),
            None => self.roles.remove(name),
        };
        self.bytes = self.bytes - before + after;
        Ok(true)
    }
}
