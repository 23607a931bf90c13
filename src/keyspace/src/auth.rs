//! Users, roles, and the keys that these may read and write: one set of them for all protocols.
//!
//! Once authentication is on, whatever a client asks for is judged by its user's roles: what it
//! writes when that is applied, after the changes before it, and what it reads after it was read.
//! Access lists ([`crate::access`]) bind clients beside that, but for those who have the role
//! [`ROOT`]. While it is off, none of this costs more than a look at a flag.

mod change;
mod principal;
mod ranges;

pub use change::{AuthChange, AuthChanges, AuthRefusal};
pub use principal::Principal;

use crate::access::Permissions;
use crate::change::Refusal;
use crate::command::{Op, Put, Txn};
use crate::lease::Leases;
use crate::types::{End, LeaseId, Span};
use imbl::OrdMap;
use minicbor::{Decode, Encode};
use ranges::{Ranges, cover};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

/// The user who has to be there, and the role of those who may do everything.
pub const ROOT: &str = "root";
/// The role of clients that name nobody. Without one, they may do nothing.
pub const GUEST: &str = "guest";

/// What a user or a role counts towards the bytes in use beside its name.
const ENTRY_BYTES: u64 = 128;
/// What each role of a user, and each permission of a role, counts beside its text.
const PART_BYTES: u64 = 64;

/// Users and roles at one moment.
#[derive(Clone, Debug)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: OrdMap<Arc<str>, Arc<User>>,
    roles: OrdMap<Arc<str>, Arc<Role>>,
    /// What they count towards the bytes in use.
    bytes: u64,
}

/// Someone who can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The password's hash; none where the user never logs in by password.
    pub password: Option<Box<str>>,
    /// The roles, some of which may not be there.
    pub roles: BTreeSet<Arc<str>>,
}

/// What those who have it may do.
#[derive(Clone, Debug)]
pub struct Role {
    permissions: OrdMap<Span, Permissions>,
    created: u64,
    modified: u64,
    /// What the permissions count towards the bytes in use.
    bytes: u64,
    /// What follows from them, found when it is first asked for: the keys that may be read, and
    /// written. A command may change one permission after the other.
    ranges: OnceLock<[Ranges; 2]>,
}

/// What a role may do with a span.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Permission {
    /// Where.
    #[n(0)]
    pub span: Span,
    /// [`Permissions::READ`], [`Permissions::WRITE`], or both.
    #[n(1)]
    pub may: Permissions,
}

impl User {
    /// Whether the user may do everything.
    pub fn is_root(&self) -> bool {
        self.roles.contains(ROOT)
    }

    fn cost(&self, name: &str) -> u64 {
        let password = self.password.as_ref().map_or(0, |hash| hash.len());
        let roles = self.roles.iter();
        let roles = roles.map(|role| PART_BYTES + role.len() as u64);
        ENTRY_BYTES + (name.len() + password) as u64 + roles.sum::<u64>()
    }
}

impl Role {
    pub(crate) fn new(created: u64) -> Role {
        Role {
            permissions: OrdMap::new(),
            created,
            modified: created,
            bytes: 0,
            ranges: OnceLock::new(),
        }
    }

    /// With a permission in the place of one for the same span.
    pub(crate) fn with(mut self, span: &Span, may: Permissions, modified: u64) -> Role {
        if self.permissions.insert(span.clone(), may).is_none() {
            self.bytes += cost_of(span);
        }
        self.changed(modified)
    }

    /// Without the permission for that span; none if there is none.
    pub(crate) fn without(mut self, span: &Span, modified: u64) -> Option<Role> {
        self.permissions.remove(span)?;
        self.bytes -= cost_of(span);
        Some(self.changed(modified))
    }

    pub(crate) fn changed(self, modified: u64) -> Role {
        Role {
            modified,
            ranges: OnceLock::new(),
            ..self
        }
    }

    /// What it may do, in the order of the spans.
    pub fn permissions(&self) -> impl ExactSizeIterator<Item = (&Span, Permissions)> {
        self.permissions.iter().map(|(span, may)| (span, *may))
    }

    /// The [`Auth::revision`] of its creation.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// The [`Auth::revision`] at which its permissions last changed.
    pub fn modified(&self) -> u64 {
        self.modified
    }

    /// About how many bytes its permissions take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn ranges(&self, may: Permissions) -> &Ranges {
        let all = || {
            [Permissions::READ, Permissions::WRITE].map(|may| {
                let those = self.permissions().filter(|(_, held)| held.meets(may));
                Ranges::of(those.map(|(span, _)| span))
            })
        };
        let [readable, writable] = self.ranges.get_or_init(all);
        match may.meets(Permissions::WRITE) {
            true => writable,
            false => readable,
        }
    }

    fn cost(&self, name: &str) -> u64 {
        ENTRY_BYTES + name.len() as u64 + self.bytes
    }
}

fn cost_of(span: &Span) -> u64 {
    let end = match &span.end {
        End::Before(end) => end.len(),
        End::Single | End::Unbounded => 0,
    };
    PART_BYTES + (span.start.len() + end) as u64
}

impl Default for Auth {
    /// Off, and nobody there. etcd's revision begins at 1 as well.
    fn default() -> Self {
        Auth::of(false, 1)
    }
}

impl Auth {
    pub(crate) fn of(enabled: bool, revision: u64) -> Auth {
        Auth {
            enabled,
            revision,
            users: OrdMap::new(),
            roles: OrdMap::new(),
            bytes: 0,
        }
    }

    /// Whether clients are judged.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Moves by one with each command that changed something.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All users by name.
    pub fn users(&self) -> impl ExactSizeIterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (&**name, &**user))
    }

    /// One user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }

    /// All roles by name. That of those who may do everything is only there if it was added.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (&**name, &**role))
    }

    /// One role.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// The users after one, by name.
    pub(crate) fn users_after(
        &self,
        name: Option<&str>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<User>)> {
        self.users.range::<_, str>((after(name), Bound::Unbounded))
    }

    /// The roles after one, by name.
    pub(crate) fn roles_after(
        &self,
        name: Option<&str>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Role>)> {
        self.roles.range::<_, str>((after(name), Bound::Unbounded))
    }

    /// Whether someone can manage them, so that nobody is locked out.
    pub(crate) fn is_sound(&self) -> bool {
        !self.enabled || self.user(ROOT).is_some_and(User::is_root)
    }

    /// What users and roles count towards the bytes in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn apply(&self, asked: &AuthChanges) -> Result<Auth, Refusal> {
        self.administers(&asked.principal)?;
        if asked.at.is_some_and(|at| at != self.revision) {
            return Err(AuthRefusal::Overtaken.into());
        }
        let mut after = self.clone();
        let mut moves = false;
        for change in &asked.changes {
            moves |= after.change(change)?;
        }
        after.revision += u64::from(moves);
        Ok(after)
    }

    /// Refuses who may not manage users and roles, and whatever else is for `root` alone.
    pub fn administers(&self, who: &Principal) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        match who {
            Principal::System => Ok(()),
            Principal::Anonymous => Err(Refusal::Unnamed),
            Principal::User { name, .. } => match self.user(name) {
                None => Err(AuthRefusal::UserMissing.into()),
                Some(user) if user.is_root() => Ok(()),
                Some(_) => Err(Refusal::Denied),
            },
        }
    }

    /// Refuses who is nobody: neither a user nor, where there is such a role, a guest.
    pub fn admits(&self, who: &Principal) -> Result<(), Refusal> {
        match who {
            Principal::Anonymous if self.enabled && self.role(GUEST).is_none() => {
                Err(Refusal::Unnamed)
            }
            Principal::System | Principal::Anonymous | Principal::User { .. } => Ok(()),
        }
    }

    /// Whether it is a user who may do everything, so that access lists do not bind them.
    pub fn is_root(&self, who: &Principal) -> bool {
        match who {
            Principal::System | Principal::Anonymous => false,
            Principal::User { name, .. } => {
                self.enabled && self.user(name).is_some_and(User::is_root)
            }
        }
    }

    /// What someone may do with keys.
    pub fn rights(&self, who: &Principal) -> Result<Rights<'_>, Refusal> {
        if !self.enabled {
            return Ok(Rights::EVERYTHING);
        }
        let (name, at) = match who {
            Principal::System => return Ok(Rights::EVERYTHING),
            Principal::Anonymous => {
                return Ok(Rights {
                    roles: Some(self.role(GUEST).into_iter().collect()),
                    denial: Refusal::Unnamed,
                });
            }
            Principal::User { name, at } => (name, at),
        };
        if at.is_some_and(|at| at < self.revision) {
            return Err(Refusal::Outdated);
        }
        let user = self.user(name).ok_or(Refusal::Denied)?;
        let roles = || user.roles.iter().filter_map(|name| self.role(name));
        Ok(Rights {
            roles: (!user.is_root()).then(|| roles().collect()),
            denial: Refusal::Denied,
        })
    }
}

fn after(name: Option<&str>) -> Bound<&str> {
    name.map_or(Bound::Unbounded, Bound::Excluded)
}

/// What someone may do with keys, by the users and roles of one moment.
pub struct Rights<'a> {
    /// None may do everything.
    roles: Option<Vec<&'a Role>>,
    /// What they are told of all else.
    denial: Refusal,
}

impl Rights<'_> {
    const EVERYTHING: Rights<'static> = Rights {
        roles: None,
        denial: Refusal::Denied,
    };

    /// Refuses what may not be done with one of these keys.
    pub fn check(&self, span: &Span, may: Permissions) -> Result<(), Refusal> {
        self.holds(|roles| cover(roles.iter().map(|role| role.ranges(may)), span))
    }

    /// The same of one key.
    pub fn check_key(&self, key: &[u8], may: Permissions) -> Result<(), Refusal> {
        self.holds(|roles| roles.iter().any(|role| role.ranges(may).contain(key)))
    }

    fn holds(&self, permitted: impl FnOnce(&[&Role]) -> bool) -> Result<(), Refusal> {
        match &self.roles {
            Some(roles) if !permitted(roles) => Err(self.denial.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a transaction of which something may not be done, whichever branch it takes.
    pub(crate) fn check_txn(&self, txn: &Txn, leases: &Leases) -> Result<(), Refusal> {
        if self.roles.is_none() {
            return Ok(());
        }
        for guard in &txn.guards {
            self.check(&guard.span, Permissions::READ)?;
        }
        for op in txn.then.iter().chain(&txn.otherwise) {
            match op {
                Op::Range(range) => self.check(&range.span, Permissions::READ)?,
                Op::Put(put) => self.check_put(put, leases)?,
                Op::Delete(delete) => {
                    self.check(&delete.span, Permissions::WRITE)?;
                    if delete.want_previous {
                        self.check(&delete.span, Permissions::READ)?;
                    }
                }
                Op::Txn(inner) => self.check_txn(inner, leases)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put, leases: &Leases) -> Result<(), Refusal> {
        self.check_key(&put.key, Permissions::WRITE)?;
        if let Some(lease) = put.lease {
            self.check_lease(lease, leases, Permissions::WRITE)?;
        }
        match put.want_previous {
            true => self.check_key(&put.key, Permissions::READ),
            false => Ok(()),
        }
    }

    /// Refuses what may not be done with one of the keys of a lease. Who binds a key to it, ends it
    /// or keeps it alive decides over all of them.
    pub(crate) fn check_lease(
        &self,
        lease: LeaseId,
        leases: &Leases,
        may: Permissions,
    ) -> Result<(), Refusal> {
        let Some(lease) = leases.get(&lease).filter(|_| self.roles.is_some()) else {
            return Ok(());
        };
        let mut keys = lease.keys.iter();
        keys.try_for_each(|slot| self.check_key(slot.key(), may))
    }
}
