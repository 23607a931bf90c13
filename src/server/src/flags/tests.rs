use super::*;
use crate::compaction::Retention;
use crate::config::{ClusterState, LogFormat};
use std::io;

/// Parses a command line, with an environment and at most one file at `/conf`.
fn start(args: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Invocation, Rejection> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let environment: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    parse(&args, &environment, |path| match path.to_str() {
        Some("/conf") => Ok(file.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn served(result: Result<Invocation, Rejection>) -> (Config, Vec<String>) {
    match result {
        Ok(Invocation::Serve(config, remarks)) => (*config, remarks),
        other => panic!("not served: {other:?}"),
    }
}

fn config(args: &[&str]) -> Config {
    served(start(args, &[], "")).0
}

fn refusal(args: &[&str]) -> String {
    match start(args, &[], "") {
        Err(Rejection::Invalid(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn usage(args: &[&str]) -> String {
    match start(args, &[], "") {
        Err(Rejection::Usage(why)) => why,
        other => panic!("no usage error: {other:?}"),
    }
}

/// etcd 3.7's names and defaults, from its `--help` and its source.
const ETCD: &str = include_str!("etcd_flags.txt");

#[test]
fn every_flag_of_etcd_is_here_with_its_default() {
    let table = table::table();
    for line in ETCD.lines().filter(|line| !line.starts_with('#')) {
        let (name, default) = line.split_once(' ').unwrap_or((line, ""));
        let flag = table.iter().find(|flag| flag.name == name);
        let flag = flag.unwrap_or_else(|| panic!("no flag {name}"));
        assert_eq!(flag.default, default, "default of {name}");
        assert_ne!(flag.group, Group::Former, "{name} is current");
    }
}

#[test]
fn the_table_is_consistent() {
    let table = table::table();
    let names: BTreeSet<&str> = table.iter().map(|flag| flag.name).collect();
    assert_eq!(names.len(), table.len(), "a flag is there twice");
    for flag in &table {
        let target = resolve(&table, flag);
        assert_eq!(target.kind, flag.kind, "{}", flag.name);
        assert!(check(&table, target, target.default).is_ok() || target.default.is_empty());
        assert!(
            flag.group == Group::Former || !flag.about.is_empty(),
            "{}",
            flag.name
        );
    }
}

#[test]
fn help_shows_every_current_flag_under_its_heading() {
    let help = help();
    for flag in table::table() {
        let shown = help.contains(&format!("\n  --{} '{}'\n", flag.name, flag.default));
        assert_eq!(shown, flag.group != Group::Former, "{}", flag.name);
    }
    for (name, heading) in [
        ("quota-backend-bytes", "Member"),
        ("initial-cluster", "Clustering"),
        ("cert-file", "Security"),
        ("auth-token", "Auth"),
        ("log-level", "Logging"),
        ("force-new-cluster", "Unsafe feature"),
    ] {
        let before = help
            .split(&format!("  --{name} "))
            .next()
            .expect("a first part");
        let heading_before = before
            .lines()
            .rev()
            .find(|line| line.ends_with(':') && !line.starts_with(' '));
        assert_eq!(heading_before, Some(&*format!("{heading}:")), "{name}");
    }
}

#[test]
fn without_flags_the_defaults_hold() {
    let config = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, "default.etcd");
    assert_eq!(
        config.listen_client_urls.to_string(),
        "http://localhost:2379"
    );
    assert_eq!(
        config.advertise_client_urls.to_string(),
        "http://localhost:2379"
    );
    assert_eq!(config.quota(), Some(2 << 30));
    assert_eq!(config.retention(), Ok(Retention::Unasked));
    let members = config.initial_members().expect("founds a cluster");
    assert_eq!(members["default"].to_string(), "http://localhost:2380");
}

#[test]
fn flags_are_spelled_as_go_allows() {
    let config = config(&[
        "-name",
        "a",
        "--data-dir=/d",
        "-snapshot-count=0x10",
        "--pre-vote=false",
        "--force-new-cluster",
        "-log-format",
        "console",
        "--log-format=json",
        "--initial-cluster-state=existing",
    ]);
    assert_eq!(
        (config.name.as_str(), config.data_dir.as_str()),
        ("a", "/d")
    );
    assert_eq!(config.snapshot_count, 16);
    assert!(!config.pre_vote && config.force_new_cluster);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.initial_cluster_state, ClusterState::Existing);
    assert_eq!(config.initial_cluster, "a=http://localhost:2380");
}

#[test]
fn what_cannot_be_read_is_a_usage_error() {
    assert_eq!(usage(&["--bogus"]), "flag provided but not defined: -bogus");
    assert_eq!(usage(&["--name"]), "flag needs an argument: -name");
    assert_eq!(usage(&["---name"]), "bad flag syntax: ---name");
    assert_eq!(
        usage(&["--snapshot-count=x"]),
        "invalid value \"x\" for flag -snapshot-count: parse error"
    );
    assert_eq!(
        usage(&["--pre-vote=x"]),
        "invalid boolean value \"x\" for -pre-vote: parse error"
    );
}

#[test]
fn a_boolean_takes_no_separate_value() {
    assert_eq!(
        refusal(&["--pre-vote", "false"]),
        "\"false\" is not a valid flag"
    );
    assert_eq!(refusal(&["serve"]), "\"serve\" is not a valid flag");
}

#[test]
fn help_and_version_come_first() {
    assert!(matches!(start(&["-h"], &[], ""), Ok(Invocation::Help)));
    assert!(matches!(start(&["--help"], &[], ""), Ok(Invocation::Help)));
    assert!(matches!(
        start(&["--version"], &[], ""),
        Ok(Invocation::Version)
    ));
}

#[test]
fn the_environment_stands_in_for_flags() {
    let environment = [
        ("ETCD_NAME", "n"),
        ("ETCD_HEARTBEAT_INTERVAL", "50"),
        ("ETCD_DATA_DIR", ""),
        ("ETCD_UNKNOWN_THING", "1"),
        ("PATH", "/bin"),
    ];
    let (config, remarks) = served(start(&[], &environment, ""));
    assert_eq!((config.name.as_str(), config.heartbeat_ms), ("n", 50));
    assert_eq!(config.data_dir, "n.etcd");
    assert_eq!(
        remarks,
        ["unrecognized environment variable ETCD_UNKNOWN_THING"]
    );
}

#[test]
fn a_flag_that_is_also_in_the_environment_is_fatal() {
    let result = start(&["--name=n"], &[("ETCD_NAME", "n")], "");
    let Err(Rejection::Invalid(why)) = result else {
        panic!("accepted: {result:?}");
    };
    assert!(
        why.starts_with("conflicting environment variable \"ETCD_NAME\""),
        "{why}"
    );
}

#[test]
fn a_file_replaces_flags_and_environment() {
    let file = "
name: from-file
data-dir: /f
heartbeat-interval: 200
watch-progress-notify-interval: 5000000000
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
advertise-client-urls: http://127.0.0.1:1
log-outputs: [stdout, stderr]
auto-compaction-retention: 5
client-transport-security:
  auto-tls: false
nonsense: 1
cert-file: ''
";
    let args = ["--config-file=/conf", "--name=flag", "--data-dir=/flag"];
    let (config, remarks) = served(start(&args, &[("ETCD_ELECTION_TIMEOUT", "9000")], file));
    assert_eq!(
        (config.name.as_str(), config.data_dir.as_str()),
        ("from-file", "/f")
    );
    assert_eq!((config.heartbeat_ms, config.election_ms), (200, 1000));
    assert_eq!(config.watch_progress_interval.as_secs(), 5);
    assert_eq!(config.listen_client_urls.0.len(), 2);
    assert_eq!(config.log_outputs.0, ["stderr", "stdout"]);
    assert!(matches!(config.retention(), Ok(Retention::Period(_))));
    assert!(
        remarks
            .iter()
            .any(|remark| remark == "unrecognized field nonsense")
    );
    assert!(
        remarks
            .iter()
            .any(|remark| remark == "unrecognized field cert-file")
    );
}

#[test]
fn a_file_may_be_json_and_named_by_the_environment() {
    let file = r#"{"name": "j", "pre-vote": false, "max-txn-ops": 5}"#;
    let (config, _) = served(start(&[], &[("ETCD_CONFIG_FILE", "/conf")], file));
    assert_eq!(
        (config.name.as_str(), config.pre_vote, config.max_txn_ops),
        ("j", false, 5)
    );
}

#[test]
fn wrong_types_in_a_file_are_refused() {
    for file in [
        "watch-progress-notify-interval: 10m",
        "pre-vote: 'true'",
        "max-txn-ops: many",
        "name: [a]",
        "client-transport-security: yes please",
        "just text",
    ] {
        let result = start(&["--config-file=/conf"], &[], file);
        assert!(
            matches!(result, Err(Rejection::Invalid(_))),
            "{file}: {result:?}"
        );
    }
    let missing = start(&["--config-file=/other"], &[], "");
    assert!(matches!(missing, Err(Rejection::Invalid(_))), "{missing:?}");
}

#[test]
fn tls_is_refused_rather_than_left_out() {
    for arg in [
        "--cert-file=a",
        "--auto-tls",
        "--peer-auto-tls=true",
        "--listen-client-urls=https://127.0.0.1:1",
        "--listen-peer-urls=https://127.0.0.1:1",
        "--initial-advertise-peer-urls=https://127.0.0.1:1",
    ] {
        let why = refusal(&[arg, "--advertise-client-urls=http://a:1"]);
        assert!(why.contains("TLS"), "{arg}: {why}");
    }
    let file = "peer-transport-security: {cert-file: a}";
    let result = start(&["--config-file=/conf"], &[], file);
    assert!(matches!(result, Err(Rejection::Invalid(_))), "{result:?}");
    assert_eq!(
        config(&["--auto-tls=false", "--cert-file="]).name,
        "default"
    );
}

#[test]
fn flags_without_effect_say_so_unless_they_ask_for_nothing() {
    let args = ["--name=n", "--max-wals=5", "--backend-batch-limit=7"];
    let (_, remarks) = served(start(&args, &[], ""));
    assert_eq!(
        remarks,
        ["--backend-batch-limit has no effect here: there is no bbolt database"]
    );
}

#[test]
fn former_names_still_work() {
    let args = [
        "--name=n",
        "--experimental-max-learners=3",
        "--proxy=off",
        "--enable-v2=false",
    ];
    let (config, remarks) = served(start(&args, &[], ""));
    assert_eq!(config.max_learners, 3);
    assert_eq!(
        remarks,
        ["--experimental-max-learners is a former name of --max-learners"]
    );
}

#[test]
fn refusals_are_etcds() {
    for (args, expected) in [
        (
            &["--listen-client-urls=http://127.0.0.1:1"][..],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--election-timeout=400"],
            "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--max-request-bytes=16777217"],
            "--max-request-bytes[16777217] must be at most 16777216",
        ),
        (
            &["--heartbeat-interval=0"],
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            &["--listen-peer-urls=http://example.com:1"],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        (
            &["--auto-compaction-mode=daily"],
            "unknown auto-compaction-mode \"daily\"",
        ),
    ] {
        assert_eq!(refusal(args), expected);
    }
}

#[test]
fn the_initial_cluster_must_name_this_member_where_it_is_reached() {
    let founding = |args: &[&str]| config(args).initial_members();
    assert_eq!(
        founding(&["--initial-cluster=b=http://localhost:2380"]),
        Err("couldn't find local name \"default\" in the initial cluster configuration".into())
    );
    assert_eq!(
        founding(&["--initial-advertise-peer-urls=http://127.0.0.1:5"]),
        Err(
            "--initial-cluster has default=http://localhost:2380 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:5"
                .into()
        )
    );
    assert_eq!(
        founding(&["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"]),
        Err(
            "initial cluster default=http://localhost:2380,b=http://localhost:2380 has duplicate url"
                .into()
        )
    );
    let members = founding(&[
        "--name=a",
        "--initial-advertise-peer-urls=http://127.0.0.1:1,http://127.0.0.1:2",
        "--initial-cluster=a=http://127.0.0.1:2,b=http://127.0.0.1:3,a=http://127.0.0.1:1",
    ]);
    let members = members.expect("founds a cluster");
    assert_eq!(
        members["a"].to_string(),
        "http://127.0.0.1:1,http://127.0.0.1:2"
    );
    assert_eq!(members.len(), 2);
    let joining = founding(&[
        "--initial-cluster-state=existing",
        "--initial-advertise-peer-urls=http://127.0.0.1:5",
    ]);
    assert!(joining.is_ok(), "the cluster knows the URLs already");
}

#[test]
fn discovery_is_a_way_of_its_own_to_found_a_cluster() {
    let url = "--discovery=http://d:1/v2/keys/t";
    let found = config(&[url, "--name=a"]);
    assert_eq!(found.initial_cluster, "");
    assert_eq!(found.cluster_token(), "http://d:1/v2/keys/t");
    assert_eq!(config(&["--discovery="]).cluster_token(), "etcd-cluster");
    assert_eq!(
        refusal(&[url, "--initial-cluster=default=http://localhost:2380"]),
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery\" or \"discovery-srv\""
    );
    assert_eq!(
        refusal(&[url, "--discovery-fallback=proxy"]),
        "--discovery-fallback=proxy: there is no proxy mode"
    );
    assert_eq!(
        usage(&["--discovery=https://d/t"]),
        "invalid value \"https://d/t\" for flag -discovery: https:// asks for TLS, which comes \
         with a later version"
    );
    for other in ["--discovery-srv=d", "--discovery-token=t"] {
        let why = refusal(&[other]);
        assert!(why.contains("use --discovery"), "{why}");
    }
}
