//! Commands on the data itself: verify, rebuild, rewind, migrate.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use waybill_runtime::fold::{Difference, EventStoreSnapshot, Finding};
use waybill_runtime::{Clock, FolderLock, Ids, Location, Migrations, OpenError, Role, Runtime};

use crate::cli::{BadSecret, MigrateOptions, ServiceOptions, StoreOptions, VerifyOptions, secret};
use crate::services::{self, Name};
use crate::show;

const ALL: [Name; 5] = [Name::Order, Name::Inventory, Name::Logistics, Name::User, Name::Audit];
const OWNING: [Name; 4] = [Name::Order, Name::Inventory, Name::Logistics, Name::User];

/// What verifying found, for programs.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    services: Vec<ServiceReport>,
    difference: Option<DifferenceReport>,
}

#[derive(Debug, Serialize)]
struct ServiceReport {
    name: &'static str,
    events: i64,
    rows: i64,
}

#[derive(Debug, Serialize)]
struct DifferenceReport {
    place: String,
    found: String,
    expected: String,
}

/// Compares everything with everything; names the first difference.
pub(crate) async fn verify(options: &VerifyOptions) -> anyhow::Result<ExitCode> {
    let report = compare(options).await?;
    if options.json {
        show::json(&report)?;
    } else {
        show::line(&describe(&report));
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn compare(options: &VerifyOptions) -> anyhow::Result<Report> {
    let location = options.store.location()?;
    let mut snapshot = EventStoreSnapshot::take(&options.store.event_store()?).await?;
    let mut report = Report::default();
    let names = if options.services.is_empty() { &OWNING[..] } else { &options.services };
    match snapshot.verify_positions().await? {
        Finding::Differs(difference) => return Ok(report.differing(difference)),
        Finding::Agrees { events, rows } => {
            report.services.push(ServiceReport { name: "event_store", events, rows });
        }
    }
    if options.services.is_empty()
        && let Some(difference) = unknown_source(&mut snapshot).await?
    {
        return Ok(report.differing(difference));
    }
    for name in names {
        let bar = bar(&format!("verifying {}", name.as_str()));
        let progress = |done, total| advance(&bar, done, total);
        let finding = services::verify(*name, &location, &mut snapshot, &progress).await?;
        bar.finish_and_clear();
        match finding {
            None => {}
            Some(Finding::Differs(difference)) => return Ok(report.differing(difference)),
            Some(Finding::Agrees { events, rows }) => {
                report.services.push(ServiceReport { name: name.as_str(), events, rows });
            }
        }
    }
    snapshot.release().await?;
    report.ok = true;
    Ok(report)
}

/// An event of a source that is none of the services has no outbox to agree with.
async fn unknown_source(
    snapshot: &mut EventStoreSnapshot,
) -> Result<Option<Difference>, OpenError> {
    let sources = snapshot.sources().await?;
    let known = |source: &&String| OWNING.iter().any(|name| name.as_str() == **source);
    Ok(sources.iter().find(|source| !known(source)).map(|source| Difference {
        place: format!("event_store: events of source {source}"),
        found: "events".to_owned(),
        expected: "none: there is no such service".to_owned(),
    }))
}

impl Report {
    fn differing(mut self, difference: Difference) -> Self {
        let Difference { place, found, expected } = difference;
        self.difference = Some(DifferenceReport { place, found, expected });
        self
    }
}

fn describe(report: &Report) -> String {
    let mut lines: Vec<String> = report
        .services
        .iter()
        .map(|one| {
            format!("{:<12} {:>10} events {:>10} rows  agree", one.name, one.events, one.rows)
        })
        .collect();
    match &report.difference {
        None => lines.push("verified: tables, outboxes and event store agree".to_owned()),
        Some(DifferenceReport { place, found, expected }) => {
            lines.push(format!("{place}: found {found}, expected {expected}"));
        }
    }
    lines.join("\n")
}

/// Makes a service's tables anew from its outbox.
pub(crate) async fn rebuild(options: &ServiceOptions) -> anyhow::Result<ExitCode> {
    let _alone = alone(&options.store)?;
    let bar = bar(&format!("rebuilding {}", options.service.as_str()));
    let progress = |done, total| advance(&bar, done, total);
    let location = options.store.location()?;
    let events = services::rebuild(options.service, &location, &Clock::system(), &progress).await?;
    bar.finish_and_clear();
    let name = options.service.as_str();
    show::line(&events.map_or_else(
        || format!("{name} owns no tables"),
        |events| format!("rebuilt the tables of {name} from {events} events"),
    ));
    Ok(ExitCode::SUCCESS)
}

/// Restarts a service's consumer at the beginning of the event store.
pub(crate) async fn rewind(options: &ServiceOptions) -> anyhow::Result<ExitCode> {
    let _alone = alone(&options.store)?;
    let name = options.service.as_str();
    let clock = Clock::system();
    let rewound = services::rewind(options.service, &options.store.location()?, &clock).await?;
    show::line(&if rewound {
        format!(
            "{name} reads the event store from its beginning when it next starts; what it has handled it skips"
        )
    } else {
        format!("{name} has no consumer")
    });
    Ok(ExitCode::SUCCESS)
}

/// Applies the migrations of services and of the event store, and gives roles their rights.
pub(crate) async fn migrate(options: &MigrateOptions) -> anyhow::Result<ExitCode> {
    let (location, event_store) = (options.store.location()?, options.store.event_store()?);
    let names = if options.services.is_empty() { &ALL[..] } else { &options.services };
    let role = |name: &Name| match &options.roles {
        Some(folder) => {
            let password = secret(&folder.join(name.as_str()))?;
            Ok(Some(Role::of(name.as_str(), password)))
        }
        None => Ok(None),
    };
    let roles = names.iter().map(role).collect::<Result<Vec<_>, BadSecret>>()?;
    let (clock, ids) = (Clock::system(), Ids::system());
    let runtime = Runtime::open(location, Some(event_store), clock, ids, Migrations::Apply).await?;
    for (name, role) in names.iter().zip(&roles) {
        services::migrate(*name, &runtime, role.as_ref()).await?;
    }
    runtime.stop().await;
    show::line("the tables are up to date");
    let roles: Vec<&str> = roles.iter().flatten().map(Role::name).collect();
    if !roles.is_empty() {
        show::line(&format!("roles that may use them: {}", roles.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

/// A data folder must not be changed beside a server that runs on it.
fn alone(options: &StoreOptions) -> anyhow::Result<Option<FolderLock>> {
    match options.location()? {
        Location::Folder(folder) if !folder.exists() => Err(OpenError::NoData { folder }.into()),
        Location::Folder(folder) => Ok(Some(FolderLock::take(&folder)?)),
        Location::Postgres(_) => Ok(None),
    }
}

fn bar(what: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} events {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what.to_owned())
}

fn advance(bar: &ProgressBar, done: i64, total: i64) {
    bar.set_length(u64::try_from(total).unwrap_or(0));
    bar.set_position(u64::try_from(done).unwrap_or(0));
}
