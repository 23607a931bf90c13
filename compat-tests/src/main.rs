//! `compat`: runs the scenarios, kills members under load, abuses servers, and writes
//! COMPATIBILITY.md.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use compat_tests::oracle::{Cluster, Kind, Protocol};
use compat_tests::run::{Plan, Tally};
use compat_tests::{abuse, discovery, matrix, rounds};

#[derive(Parser)]
#[command(about = "Compares triglot with the originals, over sockets only")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the scenarios and compare every reply with what is recorded.
    Scenarios {
        /// The implementations to run.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
        target: Vec<Kind>,
        /// The cluster sizes to run.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
        members: Vec<usize>,
        /// Only scenarios whose name, with a slash before it, contains this.
        #[arg(default_value = "")]
        filter: String,
        /// Record the replies of the targets instead of comparing them.
        #[arg(long)]
        update: bool,
        /// How many clusters run at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// A flag that Triglot is started with beside those of the scenarios, and that must not
        /// change what is answered.
        #[arg(long, allow_hyphen_values = true)]
        with: Vec<String>,
    },
    /// Run a command while a cluster serves, with its client URLs in ENDPOINTS, its connect string
    /// for ZooKeeper's clients in ZOOKEEPER (by TLS in ZOOKEEPER_TLS), and in TARGET what serves.
    Cluster {
        /// The implementation.
        #[arg(long, value_enum, default_value_t = Kind::Triglot)]
        target: Kind,
        /// How many members.
        #[arg(long, default_value_t = 3)]
        members: usize,
        /// A flag, or a line of a zoo.cfg, that every member is started with; `{secure_port}` in it
        /// is the member's own port for ZooKeeper's clients that use TLS.
        #[arg(long, allow_hyphen_values = true)]
        with: Vec<String>,
        /// Start one member more, which waits until ZooKeeper's reconfig adds it; JOINER says how
        /// that calls it.
        #[arg(long)]
        joiner: bool,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Kill members with SIGKILL under load, and judge what the clients saw.
    KillRounds {
        /// Whose clients make the load.
        #[arg(long, value_enum, default_value_t = Protocol::EtcdV3)]
        protocol: Protocol,
        /// The implementations to run [default: all that speak the protocol].
        #[arg(long, value_enum, value_delimiter = ',')]
        target: Vec<Kind>,
        /// Also cut members off from each other, half of the times; only for ZooKeeper's clients,
        /// and where network namespaces can be had (root, and `ip`).
        #[arg(long)]
        cuts: bool,
        /// How many kills.
        #[arg(long, default_value_t = 100)]
        rounds: usize,
    },
    /// Be the worst of clients, and judge what it costs the server and the others.
    Abuse {
        /// The implementation.
        #[arg(long, value_enum, default_value_t = Kind::Triglot)]
        target: Kind,
        /// Only trials whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Found clusters through registries in etcd v2's keys, each implementation through each.
    Discovery {
        /// The implementations.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::speaking(Protocol::EtcdV2))]
        target: Vec<Kind>,
    },
    /// Write COMPATIBILITY.md.
    Matrix,
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let tally = match Cli::parse().command {
        Command::Scenarios {
            target,
            members,
            filter,
            update,
            jobs,
            with,
        } => {
            let plan = Plan {
                targets: target,
                sizes: members,
                filter,
                update,
                jobs,
                with,
            };
            compat_tests::run::run(&plan, runtime.handle())?
        }
        Command::Cluster {
            target,
            members,
            with,
            joiner,
            command,
        } => {
            let mut cluster = runtime.block_on(Cluster::start(target, members, &with))?;
            let (program, arguments) = command.split_first().context("a command")?;
            let mut command = std::process::Command::new(program);
            command
                .args(arguments)
                .env("ENDPOINTS", cluster.endpoints())
                .env("ZOOKEEPER", cluster.connect_string())
                .env("ZOOKEEPER_TLS", cluster.secure_connect_string())
                .env("TARGET", target.name());
            if joiner {
                let _within = runtime.enter();
                command.env("JOINER", cluster.start_joiner()?);
            }
            let status = command.status()?;
            return Ok(ExitCode::from(u8::from(!status.success())));
        }
        Command::KillRounds {
            protocol,
            target,
            cuts,
            rounds: count,
        } => {
            let targets = if target.is_empty() {
                Kind::speaking(protocol).collect()
            } else {
                target
            };
            let mut tally = Tally::default();
            for kind in targets {
                match protocol {
                    Protocol::EtcdV3 => {
                        tally += runtime.block_on(rounds::kill_rounds(kind, count))?;
                        tally += runtime.block_on(rounds::quorum_loss(kind))?;
                    }
                    Protocol::Zookeeper => {
                        use rounds::zookeeper;
                        tally += runtime.block_on(zookeeper::rounds(kind, count, cuts))?;
                        tally += runtime.block_on(zookeeper::quorum_loss(kind))?;
                    }
                    Protocol::Crossing => {
                        for members in [1, 3] {
                            let rounds = rounds::crossing::rounds(kind, members, count);
                            tally += runtime.block_on(rounds)?;
                        }
                    }
                    Protocol::EtcdV2 => bail!("its clients make a load only with the others"),
                }
            }
            tally
        }
        Command::Abuse { target, filter } => runtime.block_on(abuse::run(target, &filter))?,
        Command::Discovery { target } => runtime.block_on(discovery::run(&target))?,
        Command::Matrix => {
            std::fs::write(matrix::page_path(), matrix::page()?)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let Tally { passed, failed } = tally;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
