//! ZooKeeper's configuration file, as far as it says something about how clients are served. What
//! it says of an ensemble, of disks or of a JVM has no meaning here and is remarked on.

use crate::config::Config;
use crate::flags::value::{FlagValue, StreamUrls, Urls};
use crate::url::Url;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use zookeeper::Options;

/// Settings that only matter to what this server does by other means.
const ELSEWHERE: &[&str] = &[
    "dataDir",
    "dataLogDir",
    "initLimit",
    "syncLimit",
    "admin.enableServer",
];

/// Takes over what the file sets. A key may bear the prefix that it has as a property of the JVM.
pub fn apply(text: &str, config: &mut Config, remarks: &mut Vec<String>) -> Result<(), String> {
    let mut port = None;
    let mut address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    for line in text.lines().map(str::trim_start) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
        let (key, value) = (key.trim_end(), value.trim());
        let key = key.strip_prefix("zookeeper.").unwrap_or(key);
        let said = |why: String| format!("invalid value {value:?} for {key}: {why}");
        match key {
            "clientPort" => port = Some(number::<u16>(value).map_err(said)?),
            "clientPortAddress" => address = number(value).map_err(said)?,
            _ if set(&mut config.zookeeper, key, value).map_err(said)? => {}
            _ if ELSEWHERE.contains(&key) => {}
            _ => remarks.push(format!(
                "{key} of the ZooKeeper configuration has no effect here"
            )),
        }
    }
    if let Some(port) = port.filter(|_| !config.given.contains("listen-zookeeper-urls")) {
        let url = Url::parse_stream(&format!("tcp://{}", SocketAddr::new(address, port)))?;
        config.listen_zookeeper_urls = StreamUrls(Urls(vec![url]));
    }
    Ok(())
}

/// Sets one option; answers whether there is such.
fn set(options: &mut Options, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "tickTime" => options.tick = millis(value)?,
        "minSessionTimeout" => options.session_timeout_min = bound(value)?,
        "maxSessionTimeout" => options.session_timeout_max = bound(value)?,
        "maxClientCnxns" => options.connections_per_address_max = number(value)?,
        "jute.maxbuffer" => options.frame_bytes_max = number(value)?,
        "extendedTypesEnabled" => options.extended_types = bool::parse(value)?,
        "skipACL" => options.skip_acl = value == "yes",
        "DigestAuthenticationProvider.superDigest" => {
            options.super_digest = Some(value.to_owned());
        }
        "4lw.commands.whitelist" => {
            options.words = value
                .split(',')
                .map(|word| word.trim().to_owned())
                .collect();
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn number<T: FromStr<Err: ToString>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
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
        apply(text, &mut config, &mut remarks).expect("a sound file");
        (config, remarks)
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
    fn what_means_nothing_here_is_remarked_on() {
        let (_, remarks) = configured("dataDir=/x\nserver.1=a:1:2\n");
        assert_eq!(
            remarks,
            ["server.1 of the ZooKeeper configuration has no effect here"]
        );
        let refused = apply("tickTime=x", &mut Config::default(), &mut Vec::new());
        assert!(refused.is_err());
    }
}
