//! Every command and option. Each option is a flag and an environment variable `WAYBILL_*`.

#![expect(clippy::doc_markdown, reason = "these comments are the help that people read")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use reqwest::Url;
use waybill_contract::logistics::CarrierMode;
use waybill_contract::{OrderId, Quantity, Sku, Text, UserId};
use waybill_order::Status;
use waybill_runtime::{DeadLetterStatus, Location};

use crate::peers::Peer;
use crate::services::Name;

/// An order pipeline that you can audit.
///
/// Without a command it serves everything on http://127.0.0.1:8080, with SQLite under ./data.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(after_help = "\
First steps:
  waybill demo                        see orders move through all services
  waybill                             serve; then open http://127.0.0.1:8080/docs
  waybill audit order ORDER_ID        what happened to an order, and what led to what
  waybill verify                      prove that tables, outboxes and event store agree")]
pub(crate) struct Cli {
    /// What to do; serves if left out.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
}

impl Cli {
    /// Whether logs would stand in the way of what is shown.
    pub(crate) fn quiet_by_default(&self) -> bool {
        !matches!(self.command, None | Some(Command::Serve(_)))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve all services, or those named.
    Serve(ServeOptions),
    /// Serve, place sample orders, and show them move to their ends.
    Demo(DemoOptions),
    /// Place, show, list, cancel and watch orders of a running server.
    Order {
        #[command(flatten)]
        server: ServerOptions,
        #[command(subcommand)]
        command: OrderCommand,
    },
    /// Ask a running server what happened.
    Audit {
        #[command(flatten)]
        server: ServerOptions,
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// List, retry and discard what could not be handled.
    DeadLetters {
        #[command(flatten)]
        server: ServerOptions,
        #[command(subcommand)]
        command: DeadLetterCommand,
    },
    /// Ask a running server whether it can do its work: exit code 0 if so, else 1 and a sentence.
    ///
    /// For the health checks of containers, which have no other program. Asks for that process alone.
    Healthcheck(ServerAddress),
    /// Judge whether a deployment keeps its promises, over HTTP alone, with orders of its own.
    ///
    /// Concurrent customers order, repeat, cancel, pay in and look, each request under a key. From
    /// the answers and from what is there in the end follows whether anything was lost, doubled,
    /// oversold, reordered or left hanging. Exit code 0 if nothing was, 1 if something was, 2 if
    /// there is no verdict. It brings products and customers of its own, whose names begin with
    /// judge-, and leaves them there.
    Judge(JudgeOptions),
    /// Prove that every table is the fold of its outbox, and the event store the outboxes.
    ///
    /// Names the first difference and exits with 1 if there is one. May run beside a server.
    Verify(VerifyOptions),
    /// Make a service's tables anew from its outbox.
    Rebuild(ServiceOptions),
    /// Send a service's consumer back to the beginning of the event store.
    ///
    /// For an event store that was lost or restored. What was handled stays marked and is skipped.
    Rewind(ServiceOptions),
    /// Apply the migrations; with --roles also set who may do what in the database.
    ///
    /// A server applies them itself where it may. Those of a new version may be applied while the
    /// old one serves.
    Migrate(MigrateOptions),
}

/// Where the data is.
#[derive(Clone, Debug, Args)]
pub(crate) struct StoreOptions {
    /// Folder of the SQLite files, one for each service and one for the event store.
    #[arg(long, env = "WAYBILL_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// Postgres database instead, such as postgres://user@host/name: a schema for each service.
    #[arg(long, env = "WAYBILL_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// File with the password for it, which then need not stand in the address.
    #[arg(
        long,
        env = "WAYBILL_DATABASE_PASSWORD_FILE",
        value_name = "FILE",
        requires = "database_url"
    )]
    pub(crate) database_password_file: Option<PathBuf>,
    /// Postgres database of the event store, if that is another one.
    #[arg(long, env = "WAYBILL_EVENT_STORE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) event_store_url: Option<String>,
    /// File with the password for it.
    #[arg(
        long,
        env = "WAYBILL_EVENT_STORE_PASSWORD_FILE",
        value_name = "FILE",
        requires = "event_store_url"
    )]
    pub(crate) event_store_password_file: Option<PathBuf>,
}

impl StoreOptions {
    /// Where services keep their tables.
    pub(crate) fn location(&self) -> Result<Location, BadSecret> {
        match &self.database_url {
            Some(url) => address(url, self.database_password_file.as_deref()),
            None => Ok(Location::Folder(self.data_dir.clone())),
        }
    }

    /// Where the event store is.
    pub(crate) fn event_store(&self) -> Result<Location, BadSecret> {
        match &self.event_store_url {
            Some(url) => address(url, self.event_store_password_file.as_deref()),
            None => self.location(),
        }
    }
}

/// An address with the password that stands in a file. What is no address is found out by those
/// who use it.
fn address(url: &str, password_file: Option<&Path>) -> Result<Location, BadSecret> {
    let mut address = url.to_owned();
    if let Some(file) = password_file {
        let password = secret(file)?;
        if let Ok(mut parsed) = Url::parse(url)
            && parsed.set_password(Some(&password)).is_ok()
        {
            address = parsed.into();
        }
    }
    Ok(Location::Postgres(address))
}

/// What a file of one line holds.
pub(crate) fn secret(file: &Path) -> Result<String, BadSecret> {
    let bad = |cause: String| BadSecret { file: file.to_owned(), cause };
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains(['\r', '\n', '\0']) {
        return Err(bad("it must hold the password in one line".to_owned()));
    }
    Ok(secret.to_owned())
}

/// A file does not tell the password that it should.
#[derive(Debug, thiserror::Error)]
#[error("the password file {} cannot be used: {cause}", file.display())]
pub(crate) struct BadSecret {
    file: PathBuf,
    cause: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeOptions {
    /// Services to run in this process; all of them if none is named.
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<Name>,
    /// Another process of this deployment, for which this one answers: service and URL, such as
    /// order=http://order:8080; may be repeated.
    ///
    /// /readyz covers it, and /openapi.json and /docs its routes. Each address of the host is a
    /// replica; one that is ready will do.
    #[arg(long = "peer", env = "WAYBILL_PEERS", value_name = "NAME=URL", value_delimiter = ',')]
    pub(crate) peers: Vec<Peer>,
    #[command(flatten)]
    pub(crate) options: RunOptions,
    /// How long a parcel is packed before it leaves.
    #[arg(long, env = "WAYBILL_PACKING", value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) packing: Duration,
    /// How long the simulated carrier takes.
    #[arg(long, env = "WAYBILL_CARRIER_TRANSIT", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) carrier_transit: Duration,
}

/// What serving and the demo have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// Address to listen on.
    #[arg(long, env = "WAYBILL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Who moves parcels once they left: `simulated` by itself, `manual` by the tracking route.
    #[arg(long, env = "WAYBILL_CARRIER", value_name = "MODE", default_value = "simulated", value_parser = carrier)]
    pub(crate) carrier: CarrierMode,
    /// How long an order may wait for stock and payment before it is cancelled.
    #[arg(long, env = "WAYBILL_ORDER_DEADLINE", value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(crate) order_deadline: Duration,
    /// Messages of one transaction at most, for the benches to measure what batches are worth.
    #[arg(long, value_name = "MESSAGES", hide = true)]
    pub(crate) batch: Option<NonZeroUsize>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoOptions {
    #[command(flatten)]
    pub(crate) options: RunOptions,
    /// How long a parcel is packed before it leaves.
    #[arg(long, env = "WAYBILL_PACKING", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) packing: Duration,
    /// How long the simulated carrier takes.
    #[arg(long, env = "WAYBILL_CARRIER_TRANSIT", value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub(crate) carrier_transit: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyOptions {
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Services to verify, where not all are at this place; all of them if none is named.
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<Name>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct JudgeOptions {
    #[command(flatten)]
    pub(crate) address: ServerAddress,
    /// Judge a private deployment instead, which is killed, stopped and paused at random meanwhile:
    /// one process on SQLite, or with --database-url a process for each service on Postgres.
    #[arg(long = "break")]
    pub(crate) breaking: bool,
    /// Postgres server for it: a database waybill_judge_... is made there and dropped in the end.
    /// The one that the address names is left alone.
    #[arg(
        long,
        env = "WAYBILL_JUDGE_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        requires = "breaking"
    )]
    pub(crate) database_url: Option<String>,
    /// How often something goes wrong with it, on average.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, requires = "breaking")]
    pub(crate) kill_every: Duration,
    /// How long customers order.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How many orders they place, instead of a time.
    #[arg(long, conflicts_with = "duration")]
    pub(crate) orders: Option<u64>,
    /// How many customers order at once.
    #[arg(long, default_value_t = 16, value_parser = customers)]
    pub(crate) customers: usize,
    /// How long orders have to come to their ends once the last is placed.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    pub(crate) settle: Duration,
    /// What the choices of customers follow from; random if left out. What meets what in the
    /// deployment is not repeated by it.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MigrateOptions {
    /// Services to migrate, where not all are at this place; all of them if none is named. The
    /// event store always is.
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<Name>,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Folder with a file for each service, named as the service, that holds a password: makes a
    /// Postgres role waybill_SERVICE with it, which can do what the service does and nothing else.
    /// The database is closed to everyone else but its owner.
    #[arg(long, env = "WAYBILL_ROLES", value_name = "FOLDER", requires = "database_url")]
    pub(crate) roles: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceOptions {
    /// Which service.
    pub(crate) service: Name,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

/// Which server to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerAddress {
    /// The server's address.
    #[arg(
        long,
        global = true,
        env = "WAYBILL_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
}

/// Which server to ask, and how to show what it says.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    pub(crate) address: ServerAddress,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Place an order.
    Place(PlaceOptions),
    /// Show an order.
    Show { id: OrderId },
    /// List orders, the newest first.
    List {
        /// Only of this customer.
        #[arg(long)]
        customer: Option<UserId>,
        /// Only of this status.
        #[arg(long, value_parser = one_of::<Status>(Status::ALL.iter().map(|it| it.as_str())))]
        status: Option<Status>,
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// Cancel an order.
    Cancel {
        id: OrderId,
        /// What the customer says about it.
        #[arg(long)]
        reason: Option<Text>,
    },
    /// Show an order each time it changes, until its end.
    Watch { id: OrderId },
}

#[derive(Debug, Args)]
pub(crate) struct PlaceOptions {
    /// Who orders.
    #[arg(long)]
    pub(crate) customer: UserId,
    /// A product and how many of it, such as TEA-500=2; may be repeated.
    #[arg(long = "line", value_name = "SKU=QUANTITY", required = true, value_parser = line)]
    pub(crate) lines: Vec<(Sku, Quantity)>,
    /// Who receives the parcel.
    #[arg(long, default_value = "Ada Lovelace")]
    pub(crate) name: Text,
    /// Street and number.
    #[arg(long, default_value = "12 St James's Square")]
    pub(crate) line1: Text,
    /// The town.
    #[arg(long, default_value = "London")]
    pub(crate) city: Text,
    /// Its postal code.
    #[arg(long, default_value = "SW1Y 4LB")]
    pub(crate) postal_code: Text,
    /// The country.
    #[arg(long, default_value = "GB")]
    pub(crate) country: Text,
    /// Repeat the same key to be sure that the order is placed only once.
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Find events.
    Events(EventOptions),
    /// Show an order's whole history, and what led to what.
    Order { id: OrderId },
}

#[derive(Debug, Args)]
pub(crate) struct EventOptions {
    /// Only what follows from this order.
    #[arg(long)]
    pub(crate) order: Option<OrderId>,
    /// Only one stream, such as order-ID.
    #[arg(long)]
    pub(crate) stream: Option<String>,
    /// Only events of one name, such as order.placed.
    #[arg(long = "type", value_name = "NAME")]
    pub(crate) kind: Option<String>,
    /// Only what one service wrote.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Only what was recorded at this time or later.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what was recorded by this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only positions after this one.
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<u64>,
    /// The newest first.
    #[arg(long)]
    pub(crate) newest_first: bool,
    /// How many at most.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterCommand {
    /// List what could not be handled, and what waits behind it.
    List {
        /// Of which service; of all if left out.
        service: Option<Writes>,
        /// Only of this status.
        #[arg(long, value_parser = one_of::<DeadLetterStatus>(
            DeadLetterStatus::ALL.iter().map(|it| it.as_str()),
        ))]
        status: Option<DeadLetterStatus>,
    },
    /// Try a parked message and what waits behind it again.
    Retry { service: Writes, id: String },
    /// Give a parked message up, for good and on record; what waits behind it goes on.
    Discard { service: Writes, id: String },
}

/// The services that handle messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Writes {
    Order,
    Inventory,
    Logistics,
    User,
}

impl Writes {
    /// Its name in paths.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Inventory => "inventory",
            Self::Logistics => "logistics",
            Self::User => "user",
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 500ms, 30s or 15m"))
}

/// A value with a text of its own, which the help lists.
fn one_of<T>(texts: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(texts).try_map(|text| text.parse::<T>())
}

/// A crowd that one machine can play.
fn customers(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000".to_owned())
}

fn carrier(text: &str) -> Result<CarrierMode, String> {
    text.parse()
}

fn line(text: &str) -> Result<(Sku, Quantity), String> {
    let (sku, quantity) = text.split_once('=').ok_or("write it as SKU=QUANTITY")?;
    let sku = sku.parse().map_err(|error| format!("the SKU {error}"))?;
    let number: i64 = quantity.parse().map_err(|_| "the quantity must be a whole number")?;
    let quantity = number.try_into().map_err(|error| format!("the quantity {error}"))?;
    Ok((sku, quantity))
}
