//! The language of users and roles: changes, separated by semicolons.
//!
//! ```text
//! user root secret; user carl -; grant root root; role r; permit r rw [/a/,/a0); enable
//! password root other; grant alice later ahead; revoke alice r; forbid r /b; remove-role r
//! ```

use super::{Parsed, number, span};
use keyspace::auth::{Auth, AuthChange, Permission};
use keyspace::{End, Permissions, Principal, Span};

pub fn changes(text: &str) -> Parsed<Vec<AuthChange>> {
    text.split(';').map(|change| parse(change.trim())).collect()
}

fn parse(text: &str) -> Parsed<AuthChange> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        ["enable"] => AuthChange::Enable,
        ["disable"] => AuthChange::Disable,
        ["user", user, password] => AuthChange::AddUser {
            user: named(user),
            password: (password != "-").then(|| password.into()),
        },
        ["remove-user", user] => AuthChange::RemoveUser(named(user)),
        ["password", user, password] => AuthChange::SetPassword {
            user: named(user),
            password: password.into(),
        },
        ["grant", user, role, ref ahead @ ..] => AuthChange::Grant {
            user: named(user),
            role: named(role),
            ahead: *ahead == ["ahead"],
        },
        ["revoke", user, role] => AuthChange::Revoke {
            user: named(user),
            role: named(role),
        },
        ["role", role] => AuthChange::AddRole(named(role)),
        ["remove-role", role] => AuthChange::RemoveRole(named(role)),
        ["permit", role, may, keys] => AuthChange::Permit {
            role: named(role),
            permission: Permission {
                span: span(keys)?,
                may: permissions(may)?,
            },
        },
        ["forbid", role, keys] => AuthChange::Forbid {
            role: named(role),
            span: span(keys)?,
        },
        _ => return Err(format!("not a change: {text}")),
    })
}

/// A name; none is spelled `''`.
fn named(text: &str) -> Box<str> {
    text.trim_matches('\'').into()
}

pub fn permissions(text: &str) -> Parsed<Permissions> {
    match text {
        "r" => Ok(Permissions::READ),
        "w" => Ok(Permissions::WRITE),
        "rw" => Ok(Permissions::READ | Permissions::WRITE),
        other => Err(format!("not permissions: {other}")),
    }
}

/// `system`, `nobody`, a user's name, or `name@revision`.
pub fn principal(text: &str) -> Parsed<Principal> {
    Ok(match text.split_once('@') {
        Some((name, at)) => Principal::User {
            name: name.into(),
            at: Some(number(at)?),
        },
        None if text == "system" => Principal::System,
        None if text == "nobody" => Principal::Anonymous,
        None => Principal::user(text),
    })
}

pub fn show(auth: &Auth) -> String {
    let enabled = if auth.enabled() { "on" } else { "off" };
    let mut out = format!("{enabled}, revision {}\n", auth.revision());
    for (name, user) in auth.users() {
        let password = user.password.as_deref().unwrap_or("-");
        let roles: Vec<&str> = user.roles.iter().map(|role| &**role).collect();
        out += &format!("user {name} {password}: {}\n", roles.join(" "));
    }
    for (name, role) in auth.roles() {
        let permission = |(span, held): (&Span, Permissions)| {
            let letters = [(Permissions::READ, "r"), (Permissions::WRITE, "w")];
            let may = letters.iter().filter(|(one, _)| held.meets(*one));
            let may: String = may.map(|(_, letter)| *letter).collect();
            format!(" {may} {}", show_span(span))
        };
        let permissions: String = role.permissions().map(permission).collect();
        let (created, modified) = (role.created(), role.modified());
        out += &format!("role {name} @{created}..{modified}:{permissions}\n");
    }
    out
}

fn show_span(span: &Span) -> String {
    let start = span.start.escape_ascii();
    match &span.end {
        End::Single => start.to_string(),
        End::Before(end) => format!("[{start},{})", end.escape_ascii()),
        End::Unbounded => format!("[{start},*)"),
    }
}
