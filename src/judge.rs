//! The judge: concurrent customers over HTTP, with a history of their own, and a verdict on whether
//! the deployment kept what it promised.
//!
//! # Layout
//! - [`workload`], [`world`], [`desk`]: what customers do, with what, and how it is written down.
//! - [`watch`], [`reading`]: what the API shows, meanwhile and in the end.
//! - [`history`] and [`found`]: the two sides; [`story`] is one order's events.
//! - [`check`]: both sides to [`violation`]s, without asking anybody; [`report`] says them.
//! - [`breaking`], [`stack`], [`scratch`]: a deployment of its own, and what goes wrong with it.

mod api;
mod breaking;
mod check;
mod desk;
mod dice;
mod found;
mod history;
mod reading;
mod report;
mod scratch;
mod stack;
mod story;
mod violation;
mod watch;
mod workload;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use waybill_runtime::{Clock, Ids, Timestamp};

use self::api::Api;
use self::breaking::Breaker;
use self::desk::Desk;
use self::dice::Dice;
use self::history::History;
use self::report::{About, Report};
use self::scratch::NoScratch;
use self::stack::Stack;
use self::violation::{Kind, Violation};
use self::watch::Watch;
use self::workload::Until;
use self::world::World;
use crate::cli::JudgeOptions;
use crate::client::{ClientError, text};
use crate::{serve, show};

/// Names of chances, apart from those of customers, who are numbered from 0.
const CARRIER: u64 = u64::MAX;
const BREAKER: u64 = u64::MAX - 1;
const PORTS: u64 = u64::MAX - 2;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotJudge {
    /// The server cannot be reached to begin with.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// It went away, or does not answer in time.
    #[error("{path} was not answered: {why}")]
    NoAnswer { path: String, why: String },
    /// It does not give what every run needs.
    #[error("{what} was refused: {why}")]
    Refused { what: String, why: String },
    /// The order service does not hear of products.
    #[error("the order service has not heard of product {sku}; are all services running?")]
    NotHeard { sku: String },
    /// What it shows is not what the API says it is.
    #[error("{path} does not show what it should: {cause}")]
    Shape { path: String, cause: serde_json::Error },
    /// Nothing can be started or signalled.
    #[error("a private deployment cannot be run: {0}")]
    Process(#[from] std::io::Error),
    /// A private deployment needs ports.
    #[error("a private deployment needs free ports of 127.0.0.1, and there are none")]
    NoPort,
    /// It needs a database.
    #[error(transparent)]
    Scratch(#[from] NoScratch),
    /// Postgres refuses what an administrator may.
    #[error("the database of the run: {0}")]
    Database(#[from] sqlx::Error),
    /// A process does not get ready.
    #[error("a private server is not ready: it {why}; its log is {}", log.display())]
    NotReady { why: String, log: PathBuf },
    /// A process does not end as it should.
    #[error("a private server does not stop as it should; its log is {}", log.display())]
    DoesNotStop { log: PathBuf },
    /// Somebody stopped the judge.
    #[error("stopped before the verdict")]
    Stopped,
}

/// Judges a deployment, or one of its own that it breaks: exit code 0 if nothing is wrong, 1 if
/// something is.
pub(crate) async fn judge(options: JudgeOptions) -> anyhow::Result<ExitCode> {
    let (clock, ids) = (Clock::system(), Ids::system());
    let seed = options.seed.unwrap_or_else(|| ids.next().as_u64_pair().1);
    let trial = Trial { options, clock, ids, seed };
    let report =
        if trial.options.breaking { trial.of_own().await? } else { trial.of_server().await? };
    if trial.options.json {
        show::json(&report)?;
    } else {
        report.show();
    }
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One run.
struct Trial {
    options: JudgeOptions,
    clock: Clock,
    ids: Ids,
    seed: u64,
}

/// What a run gathered.
struct Case {
    history: History,
    found: found::Found,
    began: Timestamp,
}

impl Trial {
    /// Of the deployment that is named.
    async fn of_server(&self) -> Result<Report, CannotJudge> {
        let server = &self.options.address.server;
        let api = Api::new(server, self.clock.clone())?;
        // Whoever mistypes an address wants to know at once.
        api.try_get("/v1/audit/events", &[("limit", "1".to_owned())]).await?;
        let case = or_stopped(Box::pin(self.hear(api, None))).await?;
        let violations = check::check(&case.history, &case.found);
        Ok(self.report(server.clone(), BTreeMap::new(), &case, &violations))
    }

    /// Of one of its own, which is broken meanwhile.
    async fn of_own(&self) -> Result<Report, CannotJudge> {
        let mut dice = Dice::new(self.ids.next().as_u64_pair().1, PORTS);
        let url = self.options.database_url.as_deref();
        let mut stack = Stack::prepare(url, &self.clock, &self.ids, &mut dice).await?;
        let judged = or_stopped(self.break_and_judge(&mut stack)).await;
        match judged {
            Ok(mut report) if !report.is_ok() => {
                report.kept(stack.keep());
                Ok(report)
            }
            // Its message names a log.
            Err(error @ (CannotJudge::NotReady { .. } | CannotJudge::DoesNotStop { .. })) => {
                stack.keep_logs().await?;
                Err(error)
            }
            judged => {
                stack.remove().await?;
                judged
            }
        }
    }

    async fn break_and_judge(&self, stack: &mut Stack) -> Result<Report, CannotJudge> {
        let mut breaker = Breaker::new(self.options.kill_every, Dice::new(self.seed, BREAKER));
        stack.start(&mut Dice::new(self.seed, PORTS)).await?;
        let api = Api::apart(&stack.apart(), &stack.url(), self.clock.clone())?;
        let case = Box::pin(self.hear(api, Some((&mut breaker, stack)))).await?;
        let mut violations = check::check(&case.history, &case.found);
        if let Some(difference) = stack.prove().await? {
            violations.push(Violation::new(Kind::Unproven, difference, "waybill verify"));
        }
        let server = match stack.database() {
            Some(_) => "a private deployment on Postgres, a process for each service",
            None => "a private deployment on SQLite",
        };
        Ok(self.report(server.to_owned(), breaker.faults, &case, &violations))
    }

    fn report(
        &self,
        server: String,
        faults: BTreeMap<&'static str, u64>,
        case: &Case,
        violations: &[Violation],
    ) -> Report {
        let took = self.clock.now().since(case.began);
        let about = About { server, seed: self.seed, took, faults };
        Report::new(about, &case.history, &case.found, violations)
    }

    /// Lets customers trade, waits for their orders to end, and reads what there is.
    async fn hear(
        &self,
        api: Api,
        mut broken: Option<(&mut Breaker, &mut Stack)>,
    ) -> Result<Case, CannotJudge> {
        let (clock, began) = (&self.clock, self.clock.now());
        let tag = format!("judge-{:012x}", self.ids.next().as_u64_pair().1 & 0xffff_ffff_ffff);
        let desk = Desk::new(api.clone(), tag.clone(), clock.clone());
        let bar = Progress::new(&desk, clock);
        let start = watch::newest(&desk).await?;
        let dice = Dice::new(self.seed, CARRIER);
        let mut watch = Watch::new(desk.clone(), tag.clone(), start, dice);
        let trading = async {
            let world = World::make(&desk, &tag, self.options.customers, clock).await?;
            let until = match self.options.orders {
                Some(orders) => Until::Orders(orders),
                None => Until::Time(clock.now().plus(self.options.duration)),
            };
            workload::trade(&desk, &world, until, self.seed, clock).await;
            Ok::<_, CannotJudge>(world)
        };
        let world = tokio::select! {
            world = trading => world?,
            error = breaks(&mut broken) => return Err(error),
            () = watch.follow() => return Err(CannotJudge::Stopped),
            () = bar.follow("customers are ordering") => return Err(CannotJudge::Stopped),
        };
        if let Some((breaker, stack)) = &mut broken {
            breaker.mend(stack).await?;
        }
        let settling = clock.now();
        let end = settling.plus(self.options.settle);
        let settle = async {
            workload::resolve(&desk).await;
            watch.settle(settling, end, clock).await;
        };
        tokio::select! {
            () = settle => {}
            () = bar.follow("orders are coming to their ends") => {}
        }
        bar.say("reading what there is");
        let history = desk.history().clone();
        let placed: BTreeSet<String> =
            history.placed().map(|(_, order)| text(order, "id")).collect();
        let mut found = reading::read(&api, &world, placed, start, settling).await?;
        found.first_read = std::mem::take(&mut watch.read);
        bar.end();
        Ok(Case { history, found, began })
    }
}

/// Breaks what may be broken; does nothing for ever where nothing may.
async fn breaks(broken: &mut Option<(&mut Breaker, &mut Stack)>) -> CannotJudge {
    match broken {
        Some((breaker, stack)) => breaker.go_on(stack).await,
        None => std::future::pending().await,
    }
}

/// Ends early when the process is told to stop.
async fn or_stopped<T>(
    work: impl Future<Output = Result<T, CannotJudge>>,
) -> Result<T, CannotJudge> {
    tokio::select! {
        done = work => done,
        _ = serve::told_to_stop() => Err(CannotJudge::Stopped),
    }
}

/// The line on a terminal that says how far the run is.
struct Progress {
    bar: ProgressBar,
    desk: Desk,
    clock: Clock,
    began: Timestamp,
}

impl Progress {
    /// How often the line changes.
    const EVERY: std::time::Duration = std::time::Duration::from_millis(200);

    fn new(desk: &Desk, clock: &Clock) -> Self {
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        Self { bar, desk: desk.clone(), clock: clock.clone(), began: clock.now() }
    }

    /// Goes on for ever.
    async fn follow(&self, what: &str) {
        loop {
            self.say(what);
            tokio::time::sleep(Self::EVERY).await;
        }
    }

    fn say(&self, what: &str) {
        let (asked, answered) = {
            let history = self.desk.history();
            (history.calls.len(), history.answered())
        };
        let seconds = self.clock.now().since(self.began).as_secs();
        self.bar
            .set_message(format!("{what}: {seconds} s, {asked} operations, {answered} answered"));
        self.bar.tick();
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
