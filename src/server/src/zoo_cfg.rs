//! ZooKeeper's configuration file, as far as it says something about how clients are served. What
//! it says of an ensemble, of disks or of a JVM has no meaning here and is remarked on.

use crate::config::Config;
use crate::flags::value::{FlagValue, StreamUrls, Urls};
use crate::tls::{ClientAuth, Files};
use crate::url;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use zookeeper::{DigestAlgorithm, Options};

/// Settings that only matter to what this server does by other means.
const ELSEWHERE: &[&str] = &[
    "dataLogDir",
    "dynamicConfigFile",
    "initLimit",
    "syncLimit",
    "serverCnxnFactory",
    "globalOutstandingLimit",
    "metricsProvider.exportJvmInfo",
    "fips-mode",
];

/// Where ZooKeeper's AdminServer listens unless told otherwise, ...
const ADMIN_PORT: u16 = 8080;
/// ... and its page of metrics.
const METRICS_PORT: u16 = 7000;
/// How those who have Java's key stores get PEM files of them.
const TO_PEM: &str = "convert it with `keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 \
                      -deststoretype PKCS12` and `openssl pkcs12 -in FILE.p12 -nodes -out FILE.pem`";

/// Takes over what the file sets, and the one with the members that it may name.
pub fn apply(
    text: &str,
    read_file: impl Fn(&Path) -> io::Result<String>,
    config: &mut Config,
    remarks: &mut Vec<String>,
) -> Result<(), String> {
    let mut places = Places::default();
    let mut enforced = Enforced::default();
    config.zookeeper.initial_configuration = text.to_owned();
    let mut dynamic = settings(text).filter(|(key, _)| *key == "dynamicConfigFile");
    let dynamic = match dynamic.next() {
        Some((_, path)) => {
            read_file(Path::new(path)).map_err(|error| format!("open {path}: {error}"))?
        }
        None => String::new(),
    };
    for (key, value) in settings(text).chain(settings(&dynamic)) {
        let said = |why: String| format!("invalid value {value:?} for {key}: {why}");
        let known = places.set(key, value).map_err(said)?
            || enforced.set(key, value).map_err(said)?
            || set(&mut config.zookeeper, key, value).map_err(said)?
            || set_tls(&mut config.zookeeper_tls, key, value).map_err(said)?
            || set_admin_path(config, key, value)
            || set_login(config, key, value)
            || ELSEWHERE.contains(&key);
        if !known {
            remarks.push(format!(
                "{key} of the ZooKeeper configuration has no effect here"
            ));
        }
    }
    config.zookeeper.enforced_schemes = enforced.schemes()?;
    // Missing where ZooKeeper never ran.
    let data_dir = places.data_dir.as_deref();
    let own = data_dir.and_then(|dir| read_file(&dir.join("myid")).ok());
    places.fill(own.as_deref().map(str::trim), config)
}

/// The keys that a file sets, with their values. A key may bear the prefix that it has as a property
/// of the JVM.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    lines.map(|line| {
        let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
        let key = key.trim_end();
        (key.strip_prefix("zookeeper.").unwrap_or(key), value.trim())
    })
}

/// Where the file says to listen, as far as no flag does.
#[derive(Default)]
struct Places {
    clients: Place,
    secure_clients: Place,
    /// By their numbers, where members say that clients reach them, in the open and by TLS.
    members: Vec<(String, [Place; 2])>,
    data_dir: Option<PathBuf>,
    metrics: Place,
    metrics_provider: String,
    admin: Place,
    admin_enabled: Option<bool>,
}

/// An address and a port.
#[derive(Clone, Default, PartialEq)]
struct Place {
    host: Option<String>,
    port: Option<u16>,
}

impl Place {
    /// `[address:]port`; nothing is nowhere.
    fn parse(text: &str) -> Result<Place, String> {
        let (host, port) = match text.rsplit_once(':') {
            None => (None, text),
            Some((host, port)) => (Some(host.to_owned()), port),
        };
        let port = (!port.is_empty()).then(|| number(port)).transpose()?;
        Ok(Place { host, port })
    }

    /// As a URL of this scheme; none without a port. May ask the system's resolver.
    fn url(&self, scheme: &str) -> Result<Option<String>, String> {
        let Some(port) = self.port else {
            return Ok(None);
        };
        let address = match &self.host {
            None => Ipv4Addr::UNSPECIFIED.into(),
            Some(host) => address(host)?,
        };
        let place = SocketAddr::new(address, port);
        Ok(Some(format!("{scheme}://{place}")))
    }
}

impl Places {
    /// Sets one; answers whether there is such.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let port = || number::<u16>(value).map(Some);
        let host = || Some(value.to_owned());
        match key {
            "dataDir" => self.data_dir = Some(value.into()),
            "clientPort" => self.clients.port = port()?,
            "clientPortAddress" => self.clients.host = host(),
            "secureClientPort" => self.secure_clients.port = port()?,
            "secureClientPortAddress" => self.secure_clients.host = host(),
            "metricsProvider.className" => value.clone_into(&mut self.metrics_provider),
            "metricsProvider.httpPort" => self.metrics.port = port()?,
            "metricsProvider.httpHost" => self.metrics.host = host(),
            "admin.serverPort" => self.admin.port = port()?,
            "admin.serverAddress" => self.admin.host = host(),
            "admin.enableServer" => self.admin_enabled = Some(bool::parse(value)?),
            // `server.N=host:port:port[:role];clients[;clients by TLS]`: the rest is about peers.
            _ => match (key.strip_prefix("server."), value.split_once(';')) {
                (Some(number), Some((_, places))) => {
                    let (open, secure) = places.split_once(';').unwrap_or((places, ""));
                    let places = [Place::parse(open)?, Place::parse(secure)?];
                    self.members.push((number.to_owned(), places));
                }
                (Some(_), None) | (None, _) => return Ok(false),
            },
        }
        Ok(true)
    }

    /// Where clients come, in the open and by TLS. Where `clientPort` does not say it, the member of
    /// this number does; who does not know its number goes by what all members say.
    fn of_clients(&self, own: Option<&str>) -> Result<[Place; 2], String> {
        let [clients, secure] = [self.clients.clone(), self.secure_clients.clone()];
        let is_own = |number: &str| own.is_none_or(|own| own == number);
        let members = self.members.iter().filter(|(number, _)| is_own(number));
        let mut said = members.map(|(_, places)| places);
        match said.next() {
            Some(first) if clients.port.is_none() => {
                if said.any(|other| other != first) {
                    return Err(
                        "which member this is says neither myid in dataDir nor clientPort, \
                                and the members do not all listen at the same port"
                            .to_owned(),
                    );
                }
                let [open, by_tls] = first.clone();
                let secure = Some(secure).filter(|place| place.port.is_some());
                Ok([open, secure.unwrap_or(by_tls)])
            }
            Some(_) | None => Ok([clients, secure]),
        }
    }

    fn fill(mut self, own: Option<&str>, config: &mut Config) -> Result<(), String> {
        if self.admin_enabled == Some(true) {
            self.admin.port.get_or_insert(ADMIN_PORT);
        }
        if self.metrics_provider.contains("Prometheus") {
            self.metrics.port.get_or_insert(METRICS_PORT);
        }
        if !config.given.contains("listen-zookeeper-urls") {
            let [open, secure] = self.of_clients(own)?;
            let urls = [open.url("tcp")?, secure.url("tls")?];
            let urls = urls.iter().flatten().map(|url| url::parse_stream(url));
            let urls: Vec<_> = urls.collect::<Result<_, _>>()?;
            if !urls.is_empty() {
                config.listen_zookeeper_urls = StreamUrls(Urls(urls));
            }
        }
        if !config.given.contains("listen-zookeeper-admin-urls")
            && self.admin_enabled != Some(false)
            && let Some(url) = self.admin.url("http")?
        {
            config.listen_zookeeper_admin_urls = Urls(vec![url::parse(&url)?]);
        }
        if !config.given.contains("listen-metrics-urls")
            && let Some(url) = self.metrics.url("http")?
        {
            config.listen_metrics_urls = Urls(vec![url::parse(&url)?]);
        }
        Ok(())
    }
}

fn set_admin_path(config: &mut Config, key: &str, value: &str) -> bool {
    let known = key == "admin.commandURL";
    if known {
        value.clone_into(&mut config.zookeeper_admin_path);
    }
    known
}

/// Sets what TLS is spoken with; answers whether there is such.
fn set_tls(files: &mut Files, key: &str, value: &str) -> Result<bool, String> {
    let pem = |path: &str| {
        let java = [".jks", ".p12", ".pfx", ".bcfks"];
        match java
            .iter()
            .any(|end| path.to_ascii_lowercase().ends_with(end))
        {
            true => Err(format!("it is no PEM file; {TO_PEM}")),
            false => Ok(path.to_owned()),
        }
    };
    match key {
        "ssl.keyStore.location" => files.cert = pem(value)?,
        "ssl.trustStore.location" => files.trusted_ca = pem(value)?,
        "ssl.keyStore.type" | "ssl.trustStore.type" if value.eq_ignore_ascii_case("PEM") => {}
        "ssl.keyStore.type" | "ssl.trustStore.type" => {
            return Err(format!("only PEM files are read; {TO_PEM}"));
        }
        "ssl.clientAuth" => files.client_auth = ClientAuth::parse(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sets who may log in by SASL; answers whether there is such.
fn set_login(config: &mut Config, key: &str, value: &str) -> bool {
    match key {
        "java.security.auth.login.config" => value.clone_into(&mut config.zookeeper_jaas),
        "sasl.serverconfig" => value.clone_into(&mut config.zookeeper_jaas_section),
        "SASLAuthenticationProvider.superPassword" => {
            config.zookeeper_sasl_super_password = Some(value.to_owned());
        }
        _ => return false,
    }
    true
}

/// Whether and how clients have to authenticate, in the two ways in which it can be said.
#[derive(Default)]
struct Enforced {
    enabled: bool,
    schemes: Vec<String>,
    sasl: bool,
}

impl Enforced {
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "sessionRequireClientSASLAuth" => self.sasl = bool::parse(value)?,
            "enforce.auth.enabled" => self.enabled = bool::parse(value)?,
            "enforce.auth.schemes" => self.schemes = words(value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The schemes by one of which they have to; none if they need not.
    fn schemes(self) -> Result<Vec<String>, String> {
        match self {
            Enforced { sasl: true, .. } => Ok(vec!["sasl".to_owned()]),
            Enforced { enabled: false, .. } => Ok(Vec::new()),
            Enforced { schemes, .. } if schemes.is_empty() => Err(
                "enforce.auth.enabled is true, but enforce.auth.schemes names no scheme".to_owned(),
            ),
            Enforced { schemes, .. } => match schemes.iter().find(|scheme| !is_scheme(scheme)) {
                Some(unknown) => Err(format!(
                    "enforce.auth.schemes: there is no scheme {unknown}"
                )),
                None => Ok(schemes),
            },
        }
    }
}

/// Whether clients can authenticate so.
fn is_scheme(scheme: &str) -> bool {
    matches!(scheme, "ip" | "digest" | "sasl" | "x509")
}

fn words(value: &str) -> Vec<String> {
    let words = value.split(',').map(str::trim);
    words.map(str::to_owned).collect()
}

/// Sets one option; answers whether there is such.
fn set(options: &mut Options, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "tickTime" => options.tick = millis(value)?,
        "minSessionTimeout" => options.session_timeout_min = bound(value)?,
        "maxSessionTimeout" => options.session_timeout_max = bound(value)?,
        "maxCnxns" => options.connections_max = number(value)?,
        "maxClientCnxns" => options.connections_per_address_max = number(value)?,
        "jute.maxbuffer" => options.frame_bytes_max = number(value)?,
        "znode.container.checkIntervalMs" => options.container_linger_ms = number(value)?,
        "extendedTypesEnabled" => options.extended_types = bool::parse(value)?,
        "enforceQuota" => options.enforce_quota = bool::parse(value)?,
        "readonlymode.enabled" => options.read_only_mode = bool::parse(value)?,
        "reconfigEnabled" => options.reconfig = bool::parse(value)?,
        "standaloneEnabled" => options.standalone = bool::parse(value)?,
        "skipACL" => options.skip_acl = value == "yes",
        "DigestAuthenticationProvider.digestAlg" => {
            let named = DigestAlgorithm::named(value);
            options.digest_algorithm =
                named.ok_or("passwords can be kept by SHA1, SHA-256 or SHA-512")?;
        }
        "DigestAuthenticationProvider.superDigest" => {
            options.super_digest = Some(value.to_owned());
        }
        "X509AuthenticationProvider.superUser" => options.super_subject = Some(value.to_owned()),
        "4lw.commands.whitelist" => {
            options.words = words(value);
        }
        "allowSaslFailedClients" => options.sasl_may_fail = bool::parse(value)?,
        _ if key == "superUser" || key.starts_with("superUser.") => {
            options.sasl_super_users.push(value.to_owned());
        }
        _ if key.starts_with("authProvider.") => match value.rsplit('.').next() {
            Some("SASLAuthenticationProvider") => options.sasl_scheme = true,
            // These are always there.
            Some(
                "IPAuthenticationProvider"
                | "DigestAuthenticationProvider"
                | "X509AuthenticationProvider",
            ) => {}
            Some(_) | None => return Err("there is no such provider here".to_owned()),
        },
        _ => return Ok(false),
    }
    Ok(true)
}

fn number<T: FromStr<Err: ToString>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

/// An address, or what the system's resolver knows a host by.
fn address(host: &str) -> Result<IpAddr, String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let mut known = (bare.unwrap_or(host), 0)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    let first = known
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    Ok(first.ip())
}

fn millis(value: &str) -> Result<Duration, String> {
    Ok(Duration::from_millis(number(value)?))
}

/// A bound on sessions; -1 is the one that follows from the tick.
fn bound(value: &str) -> Result<Option<Duration>, String> {
    match value {
        "-1" => Ok(None),
        _ => millis(value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(text: &str) -> (Config, Vec<String>) {
        let (mut config, mut remarks) = (Config::default(), Vec::new());
        apply(text, read_file, &mut config, &mut remarks).expect("a sound file");
        (config, remarks)
    }

    /// The files there are.
    fn read_file(path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/data/myid") => Ok("2\n".to_owned()),
            Some("/zoo.dynamic") => Ok("server.1=a:1:2;127.0.0.1:2185\nversion=0\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn refused(text: &str) -> Result<(), String> {
        apply(text, read_file, &mut Config::default(), &mut Vec::new())
    }

    #[test]
    fn a_members_line_says_where_its_clients_come() {
        let listens = |text: &str| configured(text).0.listen_zookeeper_urls.0.to_string();
        let all = "server.1=a:2888:3888;2182\nserver.2=b:2888:3888:participant;2182\n";
        assert_eq!(listens(all), "tcp://0.0.0.0:2182");
        let each = "server.1=a:1:2;[::1]:2183\nserver.2=b:1:2;localhost:2184;2281\n";
        let own = listens(&format!("{each}dataDir=/data\n"));
        assert_eq!(own, "tcp://127.0.0.1:2184,tls://0.0.0.0:2281");
        assert!(refused(each).is_err_and(|why| why.contains("myid")));
        let port = listens(&format!("{each}clientPort=2185\n"));
        assert_eq!(port, "tcp://0.0.0.0:2185");
        let dynamic = listens("dynamicConfigFile=/zoo.dynamic\n");
        assert_eq!(dynamic, "tcp://127.0.0.1:2185");
        assert!(refused("dynamicConfigFile=/none\n").is_err_and(|why| why.contains("/none")));
    }

    #[test]
    fn settings_are_taken_over() {
        let (config, remarks) = configured(
            "# a comment\ntickTime=500\n clientPort = 21810\nclientPortAddress=127.0.0.1\n\
             minSessionTimeout=-1\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n\
             zookeeper.extendedTypesEnabled=true\n4lw.commands.whitelist=ruok, mntr\n\
             DigestAuthenticationProvider.superDigest=super:x=\nskipACL=yes\n",
        );
        let options = &config.zookeeper;
        assert_eq!(options.tick, Duration::from_millis(500));
        assert_eq!(options.session_timeout_max, Some(Duration::from_secs(60)));
        assert_eq!(options.connections_per_address_max, 0);
        assert_eq!(options.super_digest.as_deref(), Some("super:x="));
        assert!(options.extended_types && options.skip_acl && options.allows("mntr"));
        let urls = config.listen_zookeeper_urls.0.to_string();
        assert_eq!(urls, "tcp://127.0.0.1:21810");
        assert_eq!(remarks, Vec::<String>::new());
    }

    #[test]
    fn ports_are_opened_where_the_file_says() {
        let (config, remarks) = configured(
            "secureClientPort=2281\nssl.keyStore.location=/k.pem\nssl.keyStore.type=PEM\n\
             ssl.trustStore.location=/t.pem\nssl.clientAuth=want\nadmin.serverPort=8081\n\
             admin.serverAddress=127.0.0.1\nadmin.commandURL=/do\nmaxCnxns=7\n\
             metricsProvider.className=org.x.PrometheusMetricsProvider\n\
             metricsProvider.httpHost=127.0.0.1\n",
        );
        assert_eq!(
            config.listen_zookeeper_urls.0.to_string(),
            "tls://0.0.0.0:2281"
        );
        let (admin, metrics) = (
            config.listen_zookeeper_admin_urls,
            config.listen_metrics_urls,
        );
        assert_eq!(admin.to_string(), "http://127.0.0.1:8081");
        assert_eq!(metrics.to_string(), "http://127.0.0.1:7000");
        assert_eq!(config.zookeeper_admin_path, "/do");
        assert_eq!(config.zookeeper.connections_max, 7);
        let tls = config.zookeeper_tls;
        assert_eq!((&*tls.cert, &*tls.trusted_ca), ("/k.pem", "/t.pem"));
        assert_eq!(tls.client_auth, ClientAuth::Want);
        assert_eq!(remarks, Vec::<String>::new());
        let (config, _) = configured("admin.serverPort=8081\nadmin.enableServer=false\n");
        assert!(config.listen_zookeeper_admin_urls.0.is_empty());
    }

    #[test]
    fn javas_key_stores_are_refused_with_a_way_out() {
        for line in ["ssl.keyStore.location=/k.jks", "ssl.trustStore.type=PKCS12"] {
            assert!(
                refused(line).is_err_and(|why| why.contains("openssl pkcs12")),
                "{line}"
            );
        }
    }

    #[test]
    fn what_means_nothing_here_is_remarked_on() {
        let (_, remarks) = configured("dataDir=/x\nserver.1=a:1:2\n");
        assert_eq!(
            remarks,
            ["server.1 of the ZooKeeper configuration has no effect here"]
        );
        for text in [
            "tickTime=x",
            "enforce.auth.enabled=true",
            "enforce.auth.enabled=true\nenforce.auth.schemes=sasl,other",
            "DigestAuthenticationProvider.digestAlg=MD5",
        ] {
            assert!(refused(text).is_err(), "{text}");
        }
    }

    #[test]
    fn clients_can_be_made_to_authenticate() {
        let schemes = |text| configured(text).0.zookeeper.enforced_schemes;
        assert_eq!(schemes("sessionRequireClientSASLAuth=true"), ["sasl"]);
        let either = "enforce.auth.enabled=true\nenforce.auth.schemes=digest, sasl";
        assert_eq!(schemes(either), ["digest", "sasl"]);
        assert!(schemes("enforce.auth.schemes=sasl").is_empty());
        let (config, remarks) = configured(
            "java.security.auth.login.config=/jaas\nzookeeper.sasl.serverconfig=Ours\n\
             authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
             superUser.2=ann\nSASLAuthenticationProvider.superPassword=x\n",
        );
        assert_eq!(config.zookeeper_jaas, "/jaas");
        assert_eq!(config.zookeeper_jaas_section, "Ours");
        assert_eq!(config.zookeeper.sasl_super_users, ["ann"]);
        assert!(config.zookeeper.sasl_scheme);
        assert_eq!(remarks, Vec::<String>::new());
    }
}
