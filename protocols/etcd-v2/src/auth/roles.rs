//! Roles: what is asked of them, as changes of what is there. Pure.

use super::message::{self, List, Patterns, Permissions as Permitted, Role as Described};
use super::refusal::{INTERNAL, INVALID_JSON, Refused};
use super::{Plan, pattern};
use crate::root::Root;
use axum::http::StatusCode;
use gateway::keyspace::auth::{Auth, AuthChange, Permission, ROOT, Role};
use gateway::keyspace::{Permissions, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of roles that one answer tells of: a role may be large, and be everybody's.
const TOLD_BYTES_MAX: u64 = 64 << 20;

/// A role as a client wants it.
pub struct Asked(Described);

impl Asked {
    /// Reads it; it must be the one of that name.
    pub fn parse(name: &str, body: &[u8]) -> Result<Asked, Refused> {
        let asked: Described = message::parse(body).ok_or(INVALID_JSON)?;
        match asked.role == name {
            true => Ok(Asked(asked)),
            false => Err(Refused::of_request(
                "Role JSON name does not match the name in the URL",
            )),
        }
    }

    /// What makes it so.
    pub fn plan(&self, auth: &Auth, root: &Root) -> Result<Plan, Refused> {
        let Asked(asked) = self;
        let nothing =
            |permitted: &Option<Permitted>| permitted.as_ref().is_none_or(Permitted::is_empty);
        if nothing(&asked.grant) && nothing(&asked.revoke) {
            return create(asked, auth, root);
        }
        if !asked.permissions.is_empty() {
            return Err(Refused::of_request(
                "Role JSON contains both permissions and grant/revoke",
            ));
        }
        update(asked, auth, root)
    }
}

fn create(asked: &Described, auth: &Auth, root: &Root) -> Result<Plan, Refused> {
    let name = &asked.role;
    changeable(name)?;
    if auth.role(name).is_some() {
        return Err(Refused::conflict(format!("Role {name} already exists.")));
    }
    let mut changes = vec![AuthChange::AddRole(name.as_str().into())];
    let kv = &asked.permissions.kv;
    let mut spans: BTreeMap<Span, Permissions> = BTreeMap::new();
    for (patterns, may) in [
        (&kv.read, Permissions::READ),
        (&kv.write, Permissions::WRITE),
    ] {
        for pattern in patterns.iter().flatten() {
            let held = spans.entry(pattern::span(pattern, root)).or_default();
            *held = *held | may;
        }
    }
    changes.extend(spans.into_iter().map(|(span, may)| permit(name, span, may)));
    let mut content = message::role(asked);
    content.push(b'\n');
    Ok(Plan {
        changes,
        status: StatusCode::CREATED,
        content,
    })
}

fn update(asked: &Described, auth: &Auth, root: &Root) -> Result<Plan, Refused> {
    let name = &asked.role;
    changeable(name)?;
    let role = found(auth, name)?;
    let before = described(name, role, root).permissions.kv;
    let granted = asked.grant.clone().unwrap_or_default().kv;
    let revoked = asked.revoke.clone().unwrap_or_default().kv;
    let after = Patterns {
        read: merge("read", &before.read, &granted.read, &revoked.read)?,
        write: merge("write", &before.write, &granted.write, &revoked.write)?,
    };
    if before == after {
        return Err(Refused::of_store(
            StatusCode::BAD_REQUEST,
            "Role not updated. Use grant/revoke to update the role.",
        ));
    }
    let has = |list: &List, pattern: &String| list.iter().flatten().any(|it| it == pattern);
    let lists = [granted.read, granted.write, revoked.read, revoked.write];
    let touched: BTreeSet<String> = lists.into_iter().flatten().flatten().collect();
    let may = |patterns: &Patterns, pattern: &String| {
        let bit = |has, bit| if has { bit } else { Permissions::default() };
        bit(has(&patterns.read, pattern), Permissions::READ)
            | bit(has(&patterns.write, pattern), Permissions::WRITE)
    };
    let mut changes = Vec::new();
    for touched in &touched {
        let (was, is) = (may(&before, touched), may(&after, touched));
        let span = pattern::span(touched, root);
        if is == Permissions::default() && is != was {
            let role = name.as_str().into();
            changes.push(AuthChange::Forbid { role, span });
        } else if is != was {
            changes.push(permit(name, span, is));
        }
    }
    let mut content = message::role(&Described {
        role: name.clone(),
        permissions: Permitted { kv: after },
        ..Described::default()
    });
    content.push(b'\n');
    Ok(Plan {
        changes,
        status: StatusCode::OK,
        content,
    })
}

fn permit(role: &str, span: Span, may: Permissions) -> AuthChange {
    AuthChange::Permit {
        role: role.into(),
        permission: Permission { span, may },
    }
}

/// Patterns, without some and with others. What is there already cannot be given; what is not there
/// can be taken.
fn merge(sort: &str, before: &List, granted: &List, revoked: &List) -> Result<List, Refused> {
    let mut after: BTreeSet<&String> = before.iter().flatten().collect();
    for pattern in granted.iter().flatten() {
        if !after.insert(pattern) {
            return Err(Refused::conflict(format!(
                "Granting duplicate {sort} permission {pattern}"
            )));
        }
    }
    for pattern in revoked.iter().flatten() {
        after.remove(pattern);
    }
    Ok(Some(after.into_iter().cloned().collect()))
}

/// Removes one.
pub fn delete(auth: &Auth, name: &str) -> Result<Plan, Refused> {
    changeable(name)?;
    if auth.role(name).is_none() {
        return Err(Refused::missing(format!("Role {name} doesn't exist.")));
    }
    Ok(Plan::silent(vec![AuthChange::RemoveRole(name.into())]))
}

fn changeable(name: &str) -> Result<(), Refused> {
    match name {
        ROOT => Err(Refused::forbidden(format!(
            "Cannot modify role {name}: is root role."
        ))),
        _ => Ok(()),
    }
}

fn found<'a>(auth: &'a Auth, name: &str) -> Result<&'a Role, Refused> {
    let missing = || Refused::missing(format!("Role {name} does not exist."));
    auth.role(name).ok_or_else(missing)
}

/// A role as clients are shown it; that of who may do everything is always there.
pub fn show(auth: &Auth, name: &str, root: &Root) -> Result<Described, Refused> {
    if name != ROOT {
        return Ok(described(name, found(auth, name)?, root));
    }
    let everything = || Some(vec!["/*".to_owned()]);
    Ok(Described {
        role: name.to_owned(),
        permissions: Permitted {
            kv: Patterns {
                read: everything(),
                write: everything(),
            },
        },
        ..Described::default()
    })
}

fn described(name: &str, role: &Role, root: &Root) -> Described {
    let list = |may: Permissions| {
        let those = role.permissions().filter(|(_, held)| held.meets(may));
        let shown = those.filter_map(|(span, _)| pattern::pattern(span, root));
        let shown: BTreeSet<String> = shown.collect();
        // A list that nobody has ever changed is null if it is empty.
        let untouched = role.created() == role.modified() && shown.is_empty();
        (!untouched).then(|| shown.into_iter().collect())
    };
    let kv = Patterns {
        read: list(Permissions::READ),
        write: list(Permissions::WRITE),
    };
    Described {
        role: name.to_owned(),
        permissions: Permitted { kv },
        ..Described::default()
    }
}

/// One.
pub fn one(auth: &Auth, name: &str, root: &Root) -> Result<Vec<u8>, Refused> {
    let mut content = message::role(&show(auth, name, root)?);
    content.push(b'\n');
    Ok(content)
}

/// All.
pub fn all(auth: &Auth, root: &Root) -> Result<Vec<u8>, Refused> {
    tellable(auth.roles().map(|(_, role)| role))?;
    let names = auth.roles().map(|(name, _)| name);
    let names: BTreeSet<&str> = names.chain([ROOT]).collect();
    let shown = names.iter().map(|name| {
        let shown = show(auth, name, root).expect("it is there");
        message::role(&shown)
    });
    Ok(message::all("roles", shown))
}

/// Refuses to tell of more roles than fit into an answer.
pub fn tellable<'a>(roles: impl Iterator<Item = &'a Role>) -> Result<(), Refused> {
    match roles.map(Role::bytes).sum::<u64>() <= TOLD_BYTES_MAX {
        true => Ok(()),
        false => Err(INTERNAL),
    }
}
