//! Passwords: their hashes, and who has shown by one to be a user.
//!
//! Hashing is slow on purpose, so it is done beside the connections' threads, a few at a time. What
//! was proven once is remembered in this process, since clients of HTTP prove it with each request.

use crate::gate::Gate;
use crate::toil::{self, Toil};
use keyspace::Principal;
use parking_lot::Mutex;
use replica::Unavailable;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Users whose passwords are remembered; beyond that all are forgotten and have to be proven anew.
const PROVEN_MAX: usize = 4096;

/// Who has proven what.
pub(crate) struct Logins {
    proven: Mutex<HashMap<Box<str>, Proven>>,
    /// So that what is remembered is of no use to another process.
    secret: [u8; 32],
    /// Hashes passwords: half the cores go on serving.
    toil: Toil,
}

/// That a password has this hash.
struct Proven {
    hash: Box<str>,
    seal: [u8; 32],
}

impl Default for Logins {
    fn default() -> Self {
        Logins {
            proven: Mutex::default(),
            secret: rand::random(),
            toil: Toil::new((toil::cores() / 2).max(1)),
        }
    }
}

impl Logins {
    fn seal(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.secret);
        digest.update(user.len().to_le_bytes());
        digest.update(user);
        digest.update(password);
        digest.finalize().into()
    }

    fn is_proven(&self, user: &str, hash: &str, password: &[u8]) -> bool {
        let proven = self.proven.lock();
        let proven = proven.get(user).filter(|proven| *proven.hash == *hash);
        proven.is_some_and(|proven| proven.seal == self.seal(user, password))
    }

    /// Whether a password has this hash. Of those who come with the same one at a time, the first
    /// proves it for all.
    fn proves(&self, user: &str, hash: Box<str>, password: &[u8]) -> bool {
        if self.is_proven(user, &hash, password) {
            return true;
        }
        let proves = bcrypt::verify(password, &hash).unwrap_or(false);
        if proves {
            self.remember(user, hash, password);
        }
        proves
    }

    fn remember(&self, user: &str, hash: Box<str>, password: &[u8]) {
        let seal = self.seal(user, password);
        let mut proven = self.proven.lock();
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(user.into(), Proven { hash, seal });
    }
}

impl Gate {
    /// Hashes a password as users keep it. Like etcd's, its 73rd byte and those behind do not count.
    pub async fn hash_password(&self, password: Vec<u8>) -> Result<Box<str>, Unavailable> {
        let cost = self.limits().bcrypt_cost;
        let hash = move || bcrypt::hash(password, cost);
        let hashed = self.logins().toil.run(hash).await?;
        let hashed = hashed.expect("the cost is one that there is");
        Ok(hashed.into())
    }

    /// Who a client is that gives a user's name and password; none if it is not that user, or if there
    /// is no such user here.
    pub async fn log_in(
        &self,
        user: &str,
        password: &[u8],
    ) -> Result<Option<Principal>, Unavailable> {
        let auth = self.reader().auth();
        let Some(hash) = auth.user(user).and_then(|found| found.password.clone()) else {
            return Ok(None);
        };
        if !self.logins().is_proven(user, &hash, password) {
            let (gate, user, password) = (self.clone(), user.to_owned(), password.to_owned());
            let proves = move || gate.logins().proves(&user, hash, &password);
            if !self.logins().toil.run(proves).await? {
                return Ok(None);
            }
        }
        Ok(Some(Principal::user(user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_user_one_hash_and_one_password() {
        let logins = Logins::default();
        logins.remember("ann", "hash".into(), b"old");
        assert!(
            logins.proves("ann", "hash".into(), b"old"),
            "once is enough"
        );
        assert!(!logins.proves("ann", "hash".into(), b"new"));
        assert!(!logins.proves("ann", "other".into(), b"old"));
        assert!(!logins.proves("bob", "hash".into(), b"old"));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let logins = Logins::default();
        for nth in 0..=PROVEN_MAX {
            logins.remember(&nth.to_string(), "hash".into(), b"p");
            assert!(logins.proven.lock().len() <= PROVEN_MAX);
        }
        let last = PROVEN_MAX.to_string();
        assert!(logins.is_proven(&last, "hash", b"p"));
        assert!(!logins.is_proven("0", "hash", b"p"), "all were forgotten");
    }
}
