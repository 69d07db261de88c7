//! The `waybill` executable: any subset of the services in one process, and the command line.
//!
//! # Layout
//! - [`cli`]: every command and option.
//! - [`services`]: the services there are; a new one is a line there.
//! - [`serve`]: from options to a running server, and down again.
//! - [`otel`]: traces, where they are wanted.
//! - [`proof`]: verify, rebuild, rewind, migrate.
//! - [`peers`], [`readiness`], [`healthcheck`]: whether processes are ready, asked from another one.
//! - [`client`], [`show`]: the HTTP API from a terminal.
//! - [`judge`]: whether a deployment keeps its promises, asked over HTTP while it is broken.
//! - [`demo`]: all of it at once, to look at.

mod cli;
mod client;
mod commands;
mod demo;
mod healthcheck;
mod judge;
mod otel;
mod peers;
mod proof;
mod readiness;
mod serve;
mod services;
mod show;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use waybill_runtime::OpenError;
use waybill_runtime::trace::Tracer;

use crate::cli::{BadSecret, Cli, Command};
use crate::client::ClientError;
use crate::judge::CannotJudge;
use crate::otel::{CannotTrace, Traces};

/// It does not build with Microsoft's compiler.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the end waits for threads that are stuck, such as in the lookup of a name.
const STUCK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.quiet_by_default());
    #[cfg(feature = "failpoints")]
    if let Err(error) = waybill_runtime::failpoints::arm_from_environment() {
        return complain(&error.into());
    }
    let traces = match Traces::start(&cli) {
        Ok(traces) => traces,
        Err(error) => return complain(&error.into()),
    };
    let runtime = match runtime(&cli) {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::from(error)),
    };
    let ended = runtime.block_on(run(cli, &traces.tracer()));
    runtime.shutdown_timeout(STUCK);
    traces.stop();
    ended.unwrap_or_else(|error| complain(&error))
}

/// One question every few seconds, in every container, is not worth a thread for each core.
fn runtime(cli: &Cli) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match cli.command {
        Some(Command::Healthcheck(_)) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

async fn run(cli: Cli, tracer: &Tracer) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(options) => serve::serve(options, tracer).await,
        Command::Demo(options) => demo::demo(options, tracer).await,
        Command::Order { server, command } => commands::order(&server, command).await,
        Command::Audit { server, command } => commands::audit(&server, command).await,
        Command::DeadLetters { server, command } => commands::dead_letters(&server, command).await,
        Command::Healthcheck(server) => healthcheck::healthcheck(&server).await,
        Command::Judge(options) => judge::judge(options).await,
        Command::Verify(options) => proof::verify(&options).await,
        Command::Rebuild(options) => proof::rebuild(&options).await,
        Command::Rewind(options) => proof::rewind(&options).await,
        Command::Migrate(options) => proof::migrate(&options).await,
    }
}

/// Logs go to standard error, as `RUST_LOG` says.
fn log(quiet: bool) {
    let default = if quiet { "error" } else { "info,sqlx=warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
}

/// One sentence on standard error. What the user can mend before anything began is exit code 2.
#[expect(clippy::print_stderr, reason = "the last words of the program")]
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("waybill: {error:#}");
    let bad_server = matches!(error.downcast_ref::<ClientError>(), Some(ClientError::BadServer(_)));
    let setup = bad_server
        || error.is::<OpenError>()
        || error.is::<BadSecret>()
        || error.is::<CannotTrace>()
        || error.is::<CannotJudge>()
        || error.is::<serve::CannotListen>()
        || error.is::<peers::BadDeployment>();
    ExitCode::from(if setup { 2 } else { 1 })
}
