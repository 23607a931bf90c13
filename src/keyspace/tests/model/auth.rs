//! Users and roles against a model that keeps plain lists and looks through all of them.

use super::cases;
use keyspace::auth::{AuthChange, AuthChanges, AuthRefusal, Permission};
use keyspace::command::{Command, Op, Put, Txn};
use keyspace::{Auth, End, Keyspace, Permissions, Principal, Refusal, Revision, Span, Stamp};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    Change(AuthChanges),
    Put(Principal, &'static str),
    Check(Principal, Span, Permissions),
}

fn user() -> impl Strategy<Value = Box<str>> {
    select(vec!["root", "root", "ann", "bob", ""]).prop_map(Box::from)
}

fn role() -> impl Strategy<Value = Box<str>> {
    select(vec!["root", "guest", "r", "r", "s", ""]).prop_map(Box::from)
}

fn key() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "a\0", "b", "c"])
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        2 => key().prop_map(Span::single),
        3 => (key(), key()).prop_map(|(start, end)| Span {
            start: start.into(),
            end: End::Before(end.into()),
        }),
        1 => key().prop_map(|start| Span { start: start.into(), end: End::Unbounded }),
    ]
}

fn may() -> impl Strategy<Value = Permissions> {
    select(vec![Permissions::READ, Permissions::WRITE])
}

fn principal() -> impl Strategy<Value = Principal> {
    prop_oneof![
        3 => Just(Principal::user("root")),
        3 => select(vec!["ann", "bob", "carl"]).prop_map(Principal::user),
        1 => Just(Principal::Anonymous),
        1 => Just(Principal::System),
        1 => (user(), 0u64..20).prop_map(|(name, at)| Principal::User {
            name: (*name).into(),
            at: Some(at),
        }),
    ]
}

fn change() -> impl Strategy<Value = AuthChange> {
    let mays = || {
        select(vec![
            Permissions::READ,
            Permissions::WRITE,
            Permissions::ALL,
        ])
    };
    prop_oneof![
        3 => Just(AuthChange::Enable),
        1 => Just(AuthChange::Disable),
        4 => (user(), any::<bool>()).prop_map(|(user, has)| AuthChange::AddUser {
            user,
            password: has.then(|| "hash".into()),
        }),
        1 => user().prop_map(AuthChange::RemoveUser),
        1 => user().prop_map(|user| AuthChange::SetPassword { user, password: "other".into() }),
        6 => (user(), role(), any::<bool>())
            .prop_map(|(user, role, ahead)| AuthChange::Grant { user, role, ahead }),
        1 => (user(), role()).prop_map(|(user, role)| AuthChange::Revoke { user, role }),
        4 => role().prop_map(AuthChange::AddRole),
        1 => role().prop_map(AuthChange::RemoveRole),
        6 => (role(), span(), mays()).prop_map(|(role, span, may)| AuthChange::Permit {
            role,
            permission: Permission { span, may },
        }),
        1 => (role(), span()).prop_map(|(role, span)| AuthChange::Forbid { role, span }),
    ]
}

/// A change of users and roles.
pub fn command() -> impl Strategy<Value = Command> {
    let changes = prop::collection::vec(change(), 1..3);
    changes.prop_map(|changes| {
        Command::Auth(AuthChanges {
            changes,
            ..AuthChanges::default()
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let at = prop::option::weighted(0.1, 0u64..20);
    let changes = (principal(), at, prop::collection::vec(change(), 1..3));
    prop_oneof![
        4 => changes.prop_map(|(principal, at, changes)| {
            Step::Change(AuthChanges { principal, at, changes })
        }),
        1 => (principal(), key()).prop_map(|(who, key)| Step::Put(who, key)),
        2 => (principal(), span(), may()).prop_map(|(who, span, may)| Step::Check(who, span, may)),
    ]
}

type Names = BTreeSet<String>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, (Option<String>, Names)>,
    roles: BTreeMap<String, BTreeMap<Span, Permissions>>,
}

impl Model {
    fn of(auth: &Auth) -> Model {
        let text = |text: &str| text.to_owned();
        let users = auth.users().map(|(name, user)| {
            let roles = user.roles.iter().map(|role| text(role)).collect();
            (text(name), (user.password.as_deref().map(text), roles))
        });
        let roles = auth.roles().map(|(name, role)| {
            let all = role.permissions();
            let all = all.map(|(span, may)| (span.clone(), may));
            (text(name), all.collect())
        });
        Model {
            enabled: auth.enabled(),
            revision: auth.revision(),
            users: users.collect(),
            roles: roles.collect(),
        }
    }

    fn is_root(&self, user: &str) -> bool {
        let user = self.users.get(user);
        user.is_some_and(|(_, roles)| roles.contains("root"))
    }

    fn apply(&mut self, asked: &AuthChanges) -> Result<(), Refusal> {
        match &asked.principal {
            _ if !self.enabled => {}
            Principal::System => {}
            Principal::Anonymous => return Err(Refusal::Unnamed),
            Principal::User { name, .. } if !self.users.contains_key(&**name) => {
                return Err(AuthRefusal::UserMissing.into());
            }
            Principal::User { name, .. } if !self.is_root(name) => return Err(Refusal::Denied),
            Principal::User { .. } => {}
        }
        if asked.at.is_some_and(|at| at != self.revision) {
            return Err(AuthRefusal::Overtaken.into());
        }
        let mut after = self.clone();
        for change in &asked.changes {
            after.change(change)?;
        }
        after.revision += u64::from(self.count(&asked.changes));
        *self = after;
        Ok(())
    }

    /// Whether one of these counts as a change, even if it comes to the same in the end.
    fn count(&self, changes: &[AuthChange]) -> bool {
        let mut so_far = self.clone();
        changes.iter().any(|change| {
            let before = so_far.clone();
            so_far.change(change).expect("none was refused");
            match change {
                AuthChange::Enable => false,
                AuthChange::SetPassword { .. } | AuthChange::Permit { .. } => true,
                AuthChange::Disable
                | AuthChange::AddUser { .. }
                | AuthChange::RemoveUser(_)
                | AuthChange::Grant { .. }
                | AuthChange::Revoke { .. }
                | AuthChange::AddRole(_)
                | AuthChange::RemoveRole(_)
                | AuthChange::Forbid { .. } => before != so_far,
            }
        })
    }

    fn change(&mut self, change: &AuthChange) -> Result<(), AuthRefusal> {
        use AuthRefusal as No;
        let root_stays = self.enabled;
        match change {
            AuthChange::Enable if self.enabled => {}
            AuthChange::Enable if !self.users.contains_key("root") => return Err(No::RootMissing),
            AuthChange::Enable if !self.is_root("root") => return Err(No::RootUnprivileged),
            AuthChange::Enable => self.enabled = true,
            AuthChange::Disable => self.enabled = false,
            AuthChange::AddUser { user, .. } if user.is_empty() => return Err(No::UserNameEmpty),
            AuthChange::AddUser { user, .. } if self.users.contains_key(&**user) => {
                return Err(No::UserExists);
            }
            AuthChange::AddUser { user, password } => {
                let password = password.as_deref().map(str::to_owned);
                self.users
                    .insert((**user).to_owned(), (password, Names::new()));
            }
            AuthChange::RemoveUser(user) if root_stays && **user == *"root" => {
                return Err(No::RootNeeded);
            }
            AuthChange::RemoveUser(user) => {
                self.users.remove(&**user).ok_or(No::UserMissing)?;
            }
            AuthChange::SetPassword { user, password } => {
                let found = self.users.get_mut(&**user).ok_or(No::UserMissing)?;
                found.0 = found.0.as_ref().map(|_| (**password).to_owned());
            }
            AuthChange::Grant { user, role, ahead } => {
                let known = self.roles.contains_key(&**role) || **role == *"root";
                let found = self.users.get_mut(&**user).ok_or(No::UserMissing)?;
                if !known && !ahead {
                    return Err(No::RoleMissing);
                }
                found.1.insert((**role).to_owned());
            }
            AuthChange::Revoke { user, role }
                if root_stays && **user == *"root" && **role == *"root" =>
            {
                return Err(No::RootNeeded);
            }
            AuthChange::Revoke { user, role } => {
                let found = self.users.get_mut(&**user).ok_or(No::UserMissing)?;
                if !found.1.remove(&**role) {
                    return Err(No::RoleNotGranted);
                }
            }
            AuthChange::AddRole(role) if role.is_empty() => return Err(No::RoleNameEmpty),
            AuthChange::AddRole(role) if self.roles.contains_key(&**role) => {
                return Err(No::RoleExists);
            }
            AuthChange::AddRole(role) => {
                self.roles.insert((**role).to_owned(), BTreeMap::new());
            }
            AuthChange::RemoveRole(role) if root_stays && **role == *"root" => {
                return Err(No::RootNeeded);
            }
            AuthChange::RemoveRole(role) => {
                self.roles.remove(&**role).ok_or(No::RoleMissing)?;
                for (_, roles) in self.users.values_mut() {
                    roles.remove(&**role);
                }
            }
            AuthChange::Permit { role, permission } => {
                if matches!(&permission.span.end, End::Before(end) if *end <= permission.span.start)
                {
                    return Err(No::NoKeys);
                }
                let found = self.roles.get_mut(&**role).ok_or(No::RoleMissing)?;
                found.insert(permission.span.clone(), permission.may);
            }
            AuthChange::Forbid { role, span } => {
                let found = self.roles.get_mut(&**role).ok_or(No::RoleMissing)?;
                found.remove(span).ok_or(No::PermissionNotGranted)?;
            }
        }
        Ok(())
    }

    fn check(&self, who: &Principal, span: &Span, may: Permissions) -> Result<(), Refusal> {
        let guest = Names::from(["guest".to_owned()]);
        let (roles, denial) = match who {
            _ if !self.enabled => return Ok(()),
            Principal::System => return Ok(()),
            Principal::Anonymous => (&guest, Refusal::Unnamed),
            Principal::User { at: Some(at), .. } if *at < self.revision => {
                return Err(Refusal::Outdated);
            }
            Principal::User { name, .. } => match self.users.get(&**name) {
                None => return Err(Refusal::Denied),
                Some((_, roles)) if roles.contains("root") => return Ok(()),
                Some((_, roles)) => (roles, Refusal::Denied),
            },
        };
        let spans: Vec<&Span> = roles
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flatten()
            .filter(|(_, it)| it.meets(may))
            .map(|(span, _)| span)
            .collect();
        if is_covered(span, &spans) {
            Ok(())
        } else {
            Err(denial)
        }
    }
}

/// A span is covered if its start is, and each place where a permission ends within it.
fn is_covered(span: &Span, by: &[&Span]) -> bool {
    let within = |key: &[u8]| by.iter().any(|it| it.contains(key));
    let ends = by.iter().filter_map(|it| match &it.end {
        End::Single => Some([&it.start[..], b"\0"].concat()),
        End::Before(end) => Some(end.to_vec()),
        End::Unbounded => None,
    });
    let mut ends = ends.filter(|end| **end > span.start && span.contains(end));
    let is_endless = |it: &&Span| it.end == End::Unbounded;
    within(&span.start)
        && ends.all(|end| within(&end))
        && (span.end != End::Unbounded || by.iter().any(is_endless))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn users_may_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let mut keyspace = Keyspace::new();
        let mut model = Model { revision: 1, ..Model::default() };
        let reader = keyspace.reader();
        for (index, step) in (1..).zip(&steps) {
            let stamp = Stamp { index, ..Stamp::default() };
            let before = (keyspace.digest(), reader.bytes_in_use(), reader.revision());
            match step {
                Step::Change(asked) => {
                    let command = Command::Auth(asked.clone());
                    prop_assert_eq!(&Command::decode(&command.encode()).expect("decodes"), &command);
                    let outcome = keyspace.apply(stamp, &command).outcome;
                    let expected = model.apply(asked);
                    prop_assert_eq!(outcome.err(), expected.clone().err());
                    let after = (keyspace.digest(), reader.bytes_in_use());
                    prop_assert!(expected.is_ok() || after == (before.0, before.1));
                    prop_assert_eq!(reader.revision(), before.2);
                }
                Step::Put(who, key) => {
                    let put = Op::Put(Put::new(*key, "v"));
                    let txn = Txn { principal: who.clone(), ..Txn::unconditional(vec![put]) };
                    let outcome = keyspace.apply(stamp, &Command::Txn(txn)).outcome;
                    let expected = model.check(who, &Span::single(*key), Permissions::WRITE);
                    prop_assert_eq!(outcome.err(), expected.clone().err());
                    let moved = u64::from(expected.is_ok());
                    prop_assert_eq!(reader.revision(), Revision(before.2.0 + moved));
                }
                Step::Check(who, span, may) => {
                    prop_assert_eq!(reader.check(who, span, *may), model.check(who, span, *may));
                }
            }
            prop_assert_eq!(Model::of(&reader.auth()), model.clone());
            let restored = Keyspace::restore(keyspace.cut(None).expect("it can be cut"));
            let restored = restored.expect("a cut can be restored");
            prop_assert_eq!(restored.digest(), keyspace.digest());
            prop_assert_eq!(restored.reader().bytes_in_use(), reader.bytes_in_use());
        }
    }
}
