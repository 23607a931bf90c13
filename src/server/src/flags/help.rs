//! The text of `--help`, from the table.

use super::{Flag, Group, table::table};
use std::fmt::Write;

const USAGE: &str = "\
Usage:

  triglot [flags]
    Serve.

  triglot bench [options]
    Measure a server; see `triglot bench --help`.

Each flag is also read from the environment, as ETCD_ and its name in capitals with '-' as '_'.
";

/// What `--help` shows.
pub fn help() -> String {
    let flags = table();
    let mut text = USAGE.to_owned();
    for (group, heading) in [
        (Group::Process, "Process"),
        (Group::Member, "Member"),
        (Group::Clustering, "Clustering"),
        (Group::Security, "Security"),
        (Group::Auth, "Auth"),
        (Group::Monitoring, "Profiling and Monitoring"),
        (Group::Logging, "Logging"),
        (Group::Tracing, "Distributed tracing"),
        (Group::Features, "Features"),
        (Group::Unsafe, "Unsafe feature"),
    ] {
        let _ = write!(text, "\n{heading}:\n");
        for flag in flags.iter().filter(|flag| flag.group == group) {
            describe(&mut text, flag);
        }
    }
    text
}

fn describe(text: &mut String, flag: &Flag) {
    let _ = writeln!(text, "  --{} '{}'", flag.name, flag.default);
    let _ = writeln!(text, "    {}", flag.about);
    if let Some(why) = flag.without_effect() {
        let _ = writeln!(text, "    ({why}.)");
    }
}
