//! Users: what is asked of them, as changes of what is there. Pure.

use super::message::{self, User as Described};
use super::refusal::{INVALID_JSON, Refused};
use super::{Plan, roles};
use crate::root::Root;
use axum::http::StatusCode;
use gateway::keyspace::auth::{Auth, AuthChange, ROOT, Role, User};
use std::collections::BTreeSet;

/// A user as a client wants it.
pub struct Asked(Described);

impl Asked {
    /// Reads it; it must be the one of that name.
    pub fn parse(name: &str, body: &[u8]) -> Result<Asked, Refused> {
        let asked: Described = message::parse(body).ok_or(INVALID_JSON)?;
        match asked.user == name {
            true => Ok(Asked(asked)),
            false => Err(Refused::of_request(
                "User JSON name does not match the name in the URL",
            )),
        }
    }

    /// The password that is given; empty if none is.
    pub fn password(&self) -> &str {
        &self.0.password
    }

    /// What makes it so, with the hash of the password.
    pub fn plan(&self, auth: &Auth, hash: Option<&str>) -> Result<Plan, Refused> {
        let Asked(asked) = self;
        let new = asked.roles.as_ref().is_some_and(|roles| !roles.is_empty());
        if asked.grant.is_empty() && asked.revoke.is_empty() {
            // With roles it cannot be meant for one that is there; and etcd does not call it created.
            return match auth.user(&asked.user) {
                _ if new => create(asked, auth, hash, StatusCode::OK),
                Some(user) => update(asked, user, hash),
                None => create(asked, auth, hash, StatusCode::CREATED),
            };
        }
        if new {
            return Err(Refused::of_request(
                "User JSON contains both roles and grant/revoke",
            ));
        }
        update(asked, found(auth, &asked.user)?, hash)
    }
}

fn create(
    asked: &Described,
    auth: &Auth,
    hash: Option<&str>,
    status: StatusCode,
) -> Result<Plan, Refused> {
    let name = &asked.user;
    let Some(hash) = hash else {
        return Err(Refused::of_store(
            StatusCode::BAD_REQUEST,
            format!("Cannot create user {name} with an empty password"),
        ));
    };
    if auth.user(name).is_some() {
        return Err(Refused::conflict(format!("User {name} already exists.")));
    }
    let mut roles = asked.roles.clone();
    if name == ROOT && !roles.iter().flatten().any(|role| role == ROOT) {
        roles.get_or_insert_default().push(ROOT.to_owned());
    }
    let added = AuthChange::AddUser {
        user: name.as_str().into(),
        password: Some(hash.into()),
    };
    let granted = roles.iter().flatten().map(|role| grant(name, role));
    Ok(Plan {
        changes: [added].into_iter().chain(granted).collect(),
        status,
        content: message::user(name, roles.as_deref()),
    })
}

/// A role need not be there yet.
fn grant(user: &str, role: &str) -> AuthChange {
    AuthChange::Grant {
        user: user.into(),
        role: role.into(),
        ahead: true,
    }
}

fn update(asked: &Described, user: &User, hash: Option<&str>) -> Result<Plan, Refused> {
    let name = asked.user.as_str();
    let mut roles: BTreeSet<&str> = user.roles.iter().map(|role| &**role).collect();
    let mut changes = Vec::new();
    if let Some(hash) = hash {
        changes.push(AuthChange::SetPassword {
            user: name.into(),
            password: hash.into(),
        });
    }
    for role in &asked.grant {
        if !roles.insert(role) {
            return Err(Refused::conflict(format!(
                "Granting duplicate role {role} for user {name}"
            )));
        }
        changes.push(grant(name, role));
    }
    for role in &asked.revoke {
        if !roles.remove(&role[..]) {
            return Err(Refused::conflict(format!(
                "Revoking ungranted role {role} for user {name}"
            )));
        }
        changes.push(AuthChange::Revoke {
            user: name.into(),
            role: role.as_str().into(),
        });
    }
    let same = user
        .roles
        .iter()
        .map(|role| &**role)
        .eq(roles.iter().copied());
    if hash.is_none() && same {
        return Err(Refused::of_store(
            StatusCode::BAD_REQUEST,
            "User not updated. Use grant/revoke/password to update the user.",
        ));
    }
    let roles: Vec<String> = roles.into_iter().map(str::to_owned).collect();
    Ok(Plan {
        changes,
        status: StatusCode::OK,
        content: message::user(name, Some(&roles)),
    })
}

/// Removes one.
pub fn delete(auth: &Auth, name: &str) -> Result<Plan, Refused> {
    if auth.enabled() && name == ROOT {
        return Err(Refused::forbidden(
            "Cannot delete root user while auth is enabled.",
        ));
    }
    if auth.user(name).is_none() {
        return Err(Refused::missing(format!("User {name} does not exist")));
    }
    Ok(Plan::silent(vec![AuthChange::RemoveUser(name.into())]))
}

fn found<'a>(auth: &'a Auth, name: &str) -> Result<&'a User, Refused> {
    let missing = || Refused::missing(format!("User {name} does not exist."));
    auth.user(name).ok_or_else(missing)
}

/// One, with what its roles may do: they must all be there.
pub fn one(auth: &Auth, name: &str, root: &Root) -> Result<Vec<u8>, Refused> {
    let user = found(auth, name)?;
    roles::tellable(roles_of(auth, user))?;
    let roles = user.roles.iter().map(|role| roles::show(auth, role, root));
    let roles: Vec<_> = roles.collect::<Result<_, _>>()?;
    let mut content = message::user_with_roles(name, &roles);
    content.push(b'\n');
    Ok(content)
}

/// All, with what those of their roles may do that are there.
pub fn all(auth: &Auth, root: &Root) -> Result<Vec<u8>, Refused> {
    roles::tellable(auth.users().flat_map(|(_, user)| roles_of(auth, user)))?;
    let shown = auth.users().map(|(name, user)| {
        let roles = user.roles.iter().map(|role| roles::show(auth, role, root));
        let roles: Vec<_> = roles.filter_map(Result::ok).collect();
        message::user_with_roles(name, &roles)
    });
    Ok(message::all("users", shown))
}

/// Those of a user's roles that are there.
fn roles_of<'a>(auth: &'a Auth, user: &'a User) -> impl Iterator<Item = &'a Role> {
    user.roles.iter().filter_map(|role| auth.role(role))
}
