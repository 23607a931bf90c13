//! Passwords: their hashes, and who has shown by one to be a user.
//!
//! Hashing is slow on purpose, so it is done beside the connections' threads, a few at a time. What
//! was proven once is remembered in this process, since clients of HTTP prove it with each request.

use crate::gate::Gate;
use keyspace::Principal;
use parking_lot::Mutex;
use replica::Unavailable;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::num::NonZero;
use tokio::sync::Semaphore;

/// Users whose passwords are remembered; beyond that all are forgotten and have to be proven anew.
const PROVEN_MAX: usize = 4096;

/// Who has proven what.
pub(crate) struct Logins {
    proven: Mutex<HashMap<Box<str>, Proven>>,
    /// So that what is remembered is of no use to another process.
    secret: [u8; 32],
    /// One for each password that may be hashed at a time: half the cores go on serving.
    slots: Semaphore,
}

/// That a password has this hash.
struct Proven {
    hash: Box<str>,
    seal: [u8; 32],
}

impl Default for Logins {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Logins {
            proven: Mutex::default(),
            secret: rand::random(),
            slots: Semaphore::new((cores / 2).max(1)),
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

    fn remember(&self, user: &str, hash: Box<str>, password: &[u8]) {
        let seal = self.seal(user, password);
        let mut proven = self.proven.lock();
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(user.into(), Proven { hash, seal });
    }

    /// Does what takes a core for long.
    async fn toil<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let slot = self.slots.acquire().await;
        let _slot = slot.map_err(|_| Unavailable::Stopped)?;
        // It ends early only with the runtime.
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Unavailable::Stopped)
    }
}

impl Gate {
    /// Hashes a password as users keep it. Like etcd's, its 73rd byte and those behind do not count.
    pub async fn hash_password(&self, password: Vec<u8>) -> Result<Box<str>, Unavailable> {
        let cost = self.limits().bcrypt_cost;
        let hashed = self.logins().toil(move || bcrypt::hash(password, cost));
        let hashed = hashed.await?.expect("the cost is one that there is");
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
            let (given, known) = (password.to_vec(), hash.clone());
            let verified = move || bcrypt::verify(given, &known).unwrap_or(false);
            if !self.logins().toil(verified).await? {
                return Ok(None);
            }
            self.logins().remember(user, hash, password);
        }
        Ok(Some(Principal::user(user)))
    }
}
