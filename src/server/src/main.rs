//! `triglot`: the server, and its subcommands.
//!
//! It knows flags, files, sockets and processes, and wires the other crates together. It must never
//! know what a key or a command means. Start with [`flags`], then [`config`], then [`run`].

mod admin;
mod backlog;
mod compaction;
mod config;
mod data;
mod discovery;
mod flags;
mod greeting;
mod health;
mod http;
mod listen;
mod logging;
mod members;
mod metrics;
mod paths;
mod run;
mod tls;
mod url;
mod workers;
mod zoo_cfg;

use clap::Parser;
use config::Config;
use flags::{Invocation, Rejection};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use etcd_v3::ETCD_VERSION;

/// The version of the cluster and of its storage that clients are told, as etcd derives it.
const CLUSTER_VERSION: &str = "3.7.0";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == "bench") {
        return measure(&args[1..]);
    }
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    match flags::parse(&args[1..], &environment, read) {
        Ok(Invocation::Help) => {
            print!("{}", flags::help());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Version) => {
            println!("etcd Version: {ETCD_VERSION}");
            println!("Triglot Version: {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Invocation::Serve(config, remarks)) => serve(&config, &remarks),
        Err(Rejection::Usage(why)) => {
            eprintln!("{why}\nSee `triglot --help`.");
            ExitCode::from(2)
        }
        Err(Rejection::Invalid(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config, remarks: &[String]) -> ExitCode {
    if let Err(error) = logging::start(&config.log_outputs, config.log_level, config.log_format) {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    match run::run(config, remarks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(error = format!("{failure:#}"), "the server failed");
            ExitCode::FAILURE
        }
    }
}

// The arguments' own description is the help, so there is none here.
#[derive(Parser)]
#[command(name = "triglot bench", bin_name = "triglot bench")]
struct Bench {
    #[command(flatten)]
    args: bench::BenchArgs,
}

fn measure(args: &[String]) -> ExitCode {
    let Bench { args } = Bench::parse_from(args);
    let measured = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(bench::run(args)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
