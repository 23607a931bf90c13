//! What an operator may set, under ZooKeeper's names and with its defaults.

use crate::mount::Mount;
use crate::sasl::Users;
use std::sync::Arc;
use std::time::Duration;

/// The settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `/` lies in the shared keyspace.
    pub mount: Mount,
    /// `tickTime`: what the bounds of sessions are measured in.
    pub tick: Duration,
    /// `minSessionTimeout`; none is two ticks.
    pub session_timeout_min: Option<Duration>,
    /// `maxSessionTimeout`; none is twenty ticks.
    pub session_timeout_max: Option<Duration>,
    /// `maxClientCnxns`: connections from one address; 0 is any number.
    pub connections_per_address_max: usize,
    /// `maxCnxns`: connections in all; 0 is any number.
    pub connections_max: usize,
    /// `jute.maxbuffer`: bytes of one request.
    pub frame_bytes_max: usize,
    /// `extendedTypesEnabled`: whether nodes may end when idle.
    pub extended_types: bool,
    /// `znode.container.checkIntervalMs`: how long a container that is created here stays once it has
    /// lost its last child.
    pub container_linger_ms: u64,
    /// `DigestAuthenticationProvider.digestAlg`: how the scheme `digest` keeps passwords.
    pub digest_algorithm: DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`: who may do everything.
    pub super_digest: Option<String>,
    /// `X509AuthenticationProvider.superUser`: whose certificate lets do everything.
    pub super_subject: Option<String>,
    /// `skipACL`: access lists are kept but not looked at.
    pub skip_acl: bool,
    /// Where clients connect, for those who ask; none if nowhere.
    pub client_port: Option<u16>,
    /// The same by TLS.
    pub secure_client_port: Option<u16>,
    /// Where the data lies, for those who ask.
    pub data_dir: String,
    /// The configuration file's text, for those who ask.
    pub initial_configuration: String,
    /// What the process may open, and has open.
    pub files: fn() -> Option<OpenFiles>,
    /// What `java.security.auth.login.config` names: who may log in by SASL; none if nobody can.
    pub sasl: Option<Arc<Users>>,
    /// Whether an `authProvider.N` lets access lists name who has logged in so.
    pub sasl_scheme: bool,
    /// `superUser.N`: who of these may do everything.
    pub sasl_super_users: Vec<String>,
    /// `allowSaslFailedClients`: who could not log in is served as one that did not try.
    pub sasl_may_fail: bool,
    /// `enforce.auth.schemes`: who has not authenticated by one of these is not served; none if it
    /// does not matter.
    pub enforced_schemes: Vec<String>,
    /// `enforceQuota`: whether hard limits of quotas are more than warnings.
    pub enforce_quota: bool,
    /// `readonlymode.enabled`: whether clients that only read are served without a leader.
    pub read_only_mode: bool,
    /// `reconfigEnabled`: whether the members can be changed.
    pub reconfig: bool,
    /// `standaloneEnabled`: whether a single member counts as a server that stands alone.
    pub standalone: bool,
    /// `4lw.commands.whitelist`: the four-letter words that are answered; `*` is all.
    pub words: Vec<String>,
}

/// How the scheme `digest` keeps a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// ZooKeeper's default.
    Sha1,
    /// SHA-2 of 256 bits.
    Sha256,
    /// SHA-2 of 512 bits.
    Sha512,
}

impl DigestAlgorithm {
    /// The one that Java calls so, if it is one of these.
    pub fn named(name: &str) -> Option<DigestAlgorithm> {
        match name.to_ascii_uppercase().as_str() {
            "SHA1" | "SHA-1" | "SHA" => Some(DigestAlgorithm::Sha1),
            "SHA-256" => Some(DigestAlgorithm::Sha256),
            "SHA-512" => Some(DigestAlgorithm::Sha512),
            _ => None,
        }
    }
}

/// Files of the process, sockets included.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    /// How many are open.
    pub open: u64,
    /// How many may be.
    pub max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mount: Mount::default(),
            tick: Duration::from_millis(3000),
            session_timeout_min: None,
            session_timeout_max: None,
            connections_per_address_max: 60,
            connections_max: 0,
            frame_bytes_max: crate::frame::FRAME_BYTES_MAX,
            extended_types: false,
            container_linger_ms: 60_000,
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            super_subject: None,
            skip_acl: false,
            client_port: None,
            secure_client_port: None,
            data_dir: String::new(),
            initial_configuration: String::new(),
            files: || None,
            sasl: None,
            sasl_scheme: false,
            sasl_super_users: Vec::new(),
            sasl_may_fail: false,
            enforced_schemes: Vec::new(),
            enforce_quota: false,
            read_only_mode: false,
            reconfig: false,
            standalone: true,
            words: vec!["srvr".to_owned()],
        }
    }
}

impl Options {
    /// The shortest session.
    pub fn timeout_min(&self) -> Duration {
        self.session_timeout_min.unwrap_or(self.tick * 2)
    }

    /// The longest session.
    pub fn timeout_max(&self) -> Duration {
        self.session_timeout_max.unwrap_or(self.tick * 20)
    }

    /// What a session gets that asks for so many milliseconds.
    pub fn negotiate_ms(&self, asked_ms: i32) -> i32 {
        let bound = |bound: Duration| i32::try_from(bound.as_millis()).unwrap_or(i32::MAX);
        asked_ms
            .max(bound(self.timeout_min()))
            .min(bound(self.timeout_max()))
    }

    /// Whether who has not logged in by SASL is not served.
    pub fn requires_sasl(&self) -> bool {
        self.enforced_schemes.iter().any(|scheme| scheme == "sasl")
    }

    /// Whether a four-letter word is answered. `srvr` is, whatever the list says.
    pub fn allows(&self, word: &str) -> bool {
        let listed = |allowed: &String| allowed == "*" || allowed == word;
        // Clients that only read look for a server that can write so.
        let asked = self.read_only_mode && word == "isro";
        word == "srvr" || asked || self.words.iter().any(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_last_two_to_twenty_ticks() {
        let options = Options::default();
        assert_eq!(options.negotiate_ms(1), 6000);
        assert_eq!(options.negotiate_ms(-5), 6000);
        assert_eq!(options.negotiate_ms(10_000), 10_000);
        assert_eq!(options.negotiate_ms(i32::MAX), 60_000);
    }

    #[test]
    fn words_are_answered_where_they_are_listed() {
        let mut options = Options::default();
        assert!(options.allows("srvr") && !options.allows("ruok"));
        options.read_only_mode = true;
        assert!(options.allows("isro") && !options.allows("ruok"));
        options.words = vec!["*".to_owned()];
        assert!(options.allows("ruok"));
    }
}
