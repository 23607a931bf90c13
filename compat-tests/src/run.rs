//! Runs every script on every target and cluster size, and compares with what is recorded.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use similar::TextDiff;
use tokio::runtime::Handle;

use crate::oracle::{Cluster, Kind, Protocol};
use crate::script::Script;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The implementations.
    pub targets: Vec<Kind>,
    /// The cluster sizes.
    pub sizes: Vec<usize>,
    /// Only scripts whose name, with a slash before it, contains this.
    pub filter: String,
    /// Record the replies instead of comparing them.
    pub update: bool,
    /// How many clusters run at once.
    pub jobs: usize,
    /// Flags that Triglot is started with beside those of the scripts: what is answered must not
    /// depend on them.
    pub with: Vec<String>,
}

/// How many scripts passed and failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Replies as recorded.
    pub passed: usize,
    /// Replies that differ, or no replies.
    pub failed: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Where the scripts are.
pub fn scripts_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Every script, by name. Files with an extension are what one target answers instead.
///
/// # Errors
/// When a file cannot be read or understood.
pub fn load_scripts() -> Result<Vec<Script>> {
    let root = scripts_dir();
    let mut scripts = Vec::new();
    let mut folders = VecDeque::from([root.clone()]);
    while let Some(folder) = folders.pop_front() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push_back(path);
            } else if !Kind::ALL.iter().any(|k| {
                path.display()
                    .to_string()
                    .ends_with(&format!(".{}", k.name()))
            }) {
                let script = Script::load(&root, &path);
                scripts.push(script.with_context(|| path.display().to_string())?);
            }
        }
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

/// Runs the plan and prints one line for each target and size.
///
/// # Errors
/// When the scripts cannot be loaded.
pub fn run(plan: &Plan, runtime: &Handle) -> Result<Tally> {
    let mut scripts = load_scripts()?;
    scripts.retain(|script| format!("/{}", script.name).contains(&plan.filter));
    ensure!(!scripts.is_empty(), "no script matches {:?}", plan.filter);
    let mut queue = VecDeque::new();
    for &size in &plan.sizes {
        for &kind in &plan.targets {
            for protocol in Protocol::ALL {
                if kind.speaks(protocol) && scripts.iter().any(|s| s.protocol == protocol) {
                    queue.push_back((kind, size, protocol));
                }
            }
        }
    }
    let queue = Mutex::new(queue);
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic while held").pop_front();
                    let Some((kind, size, protocol)) = next else {
                        return;
                    };
                    let tally = Target {
                        kind,
                        size,
                        protocol,
                        update: plan.update,
                        with: &plan.with,
                        runtime,
                    }
                    .run(&scripts);
                    *total.lock().expect("no panic while held") += tally;
                }
            });
        }
    });
    Ok(total.into_inner().expect("no panic while held"))
}

/// One implementation in one cluster size, asked in one protocol.
struct Target<'a> {
    kind: Kind,
    size: usize,
    protocol: Protocol,
    update: bool,
    with: &'a [String],
    runtime: &'a Handle,
}

impl Target<'_> {
    fn run(&self, scripts: &[Script]) -> Tally {
        let started = Instant::now();
        let (mut tally, mut skipped) = (Tally::default(), 0);
        let mut shared: Option<Cluster> = None;
        let scripts = scripts.iter().filter(|s| s.protocol == self.protocol);
        for (index, script) in scripts.enumerate() {
            if script.skip(self.kind).is_some() {
                skipped += 1;
                continue;
            }
            if script.members.is_some_and(|size| size != self.size) {
                continue;
            }
            let mut own = None;
            let cluster = match script.own_servers {
                true => &mut own,
                false => &mut shared,
            };
            let mut outcome = self.run_on(cluster, script, index);
            if let Err(error) = &outcome
                && self.kind != Kind::Triglot
            {
                // What an original does now and then, under load, is not what was recorded of it.
                println!("AGAIN {} on {}\n{error:#}", script.name, self.kind.name());
                outcome = self.run_on(cluster, script, index);
            }
            match outcome {
                Ok(()) => tally.passed += 1,
                Err(error) => {
                    tally.failed += 1;
                    println!(
                        "FAIL {} on {} x{}\n{error:#}",
                        script.name,
                        self.kind.name(),
                        self.size
                    );
                }
            }
        }
        println!(
            "{} x{} in {}: {} passed, {} failed, {skipped} not for it, {:.1} s",
            self.kind.name(),
            self.size,
            self.protocol.folder(),
            tally.passed,
            tally.failed,
            started.elapsed().as_secs_f64(),
        );
        tally
    }

    /// Runs one script, starting the servers when `cluster` has none.
    fn run_on(&self, cluster: &mut Option<Cluster>, script: &Script, index: usize) -> Result<()> {
        if cluster.as_mut().is_none_or(|running| !running.is_healthy()) {
            let flags = self.flags(script);
            let start = Cluster::start(self.kind, self.size, &flags);
            *cluster = Some(self.runtime.block_on(start)?);
        }
        let running = cluster.as_mut().context("just started")?;
        let before = Instant::now();
        // Every member of a cluster must answer alike, so the scripts take turns.
        let asked = index % running.members.len();
        let replies = script.run(running, self.runtime, asked);
        let verdict = replies.and_then(|replies| self.judge(script, &replies));
        if let Err(error) = verdict {
            let ended = !running.is_healthy();
            let logs = running.keep_logs();
            // The next script starts afresh, whatever state this one has left.
            *cluster = None;
            let error = error.context(format!("logs are in {}", logs.display()));
            return Err(match ended {
                true => error.context("a server has ended by itself"),
                false => error,
            });
        }
        if std::env::var_os("COMPAT_TIMES").is_some() {
            println!("{:6.2} s {}", before.elapsed().as_secs_f64(), script.name);
        }
        Ok(())
    }

    /// What the script's servers are started with: its own flags, or those of all shared servers.
    fn flags(&self, script: &Script) -> Vec<String> {
        let mut flags = if script.own_servers {
            script.flags.clone()
        } else {
            let shared = self.protocol.shared_flags().iter();
            shared.map(|flag| (*flag).to_owned()).collect()
        };
        if let Some(needed) = self.protocol.needed_flag() {
            let (name, _) = needed.split_once('=').unwrap_or((needed, ""));
            if !flags.iter().any(|flag| flag.starts_with(name)) {
                flags.push(needed.to_owned());
            }
        }
        if self.kind == Kind::Triglot {
            flags.extend_from_slice(self.with);
        }
        flags
    }

    fn judge(&self, script: &Script, replies: &str) -> Result<()> {
        let own = script.path.with_file_name(format!(
            "{}.{}",
            script
                .path
                .file_name()
                .context("a script has a name")?
                .display(),
            self.kind.name()
        ));
        let differs = script.differs.contains_key(self.kind.name()) || own.is_file();
        let path = if differs { &own } else { &script.path };
        if self.update {
            std::fs::write(path, replies)?;
            return Ok(());
        }
        let recorded = std::fs::read_to_string(path)?;
        ensure!(
            recorded == replies,
            "{}",
            TextDiff::from_lines(recorded.as_str(), replies)
                .unified_diff()
                .header("recorded", self.kind.name())
        );
        Ok(())
    }
}
