//! The whole system in one folder and one thread, and everything that can be done to it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use waybill_contract::logistics::CarrierMode;
use waybill_contract::{Event, LogisticsEvent, OrderId, ShipmentId};
use waybill_inventory::InventoryService;
use waybill_logistics::LogisticsService;
use waybill_order::OrderService;
use waybill_runtime::failpoints::{CommitPoint, Reached};
use waybill_runtime::fold;
use waybill_runtime::{
    Clock, EventStore, Filter, Ids, Location, Migrations, Position, Step, StoreError, StoredEvent,
    Timestamp, text_enum,
};
use waybill_user::UserService;

use crate::chance::{self, Chance};
use crate::fault::Planned;
use crate::log::Log;
use crate::poison;
use crate::replica::{Kind, OwnClock, Replica, Stepped};
use crate::site::Site;
use crate::tally::{Branch, Fault, Tally};
use crate::template::{BEGINNING, EVENT_STORE, Template};
use crate::watch::Watch;

text_enum! {
    /// The services, in the order of an order's way.
    pub(crate) enum Name {
        /// Takes orders.
        Order = "order",
        /// Keeps stock.
        Inventory = "inventory",
        /// Keeps money.
        User = "user",
        /// Moves parcels.
        Logistics = "logistics",
    }
}

/// Does something with the site of a service, whatever its type.
macro_rules! at {
    ($world:expr, $name:expr, $site:ident => $does:expr) => {
        match $name {
            $crate::world::Name::Order => {
                let $site = &mut $world.order;
                $does
            }
            $crate::world::Name::Inventory => {
                let $site = &mut $world.inventory;
                $does
            }
            $crate::world::Name::User => {
                let $site = &mut $world.user;
                $does
            }
            $crate::world::Name::Logistics => {
                let $site = &mut $world.logistics;
                $does
            }
        }
    };
}
pub(crate) use at;

/// More events than a run has.
pub(crate) const ALL_EVENTS: usize = 100_000;

/// The system and its surroundings.
pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) log: Log,
    pub(crate) tally: Tally,
    pub(crate) ids: Ids,
    pub(crate) now: Timestamp,
    pub(crate) order: Site<OrderService>,
    pub(crate) inventory: Site<InventoryService>,
    pub(crate) user: Site<UserService>,
    pub(crate) logistics: Site<LogisticsService>,
    pub(crate) watch: Watch,
    /// Every parcel that was made, as far as the world has heard.
    pub(crate) parcels: Vec<(OrderId, ShipmentId)>,
    /// A fault that waits for the first transaction of one kind.
    pub(crate) ambush: Option<(CommitPoint, Fault)>,
    /// Services of which dead letters are to be tried again.
    pub(crate) retrying: BTreeSet<Name>,
    /// The lanes of which an operator gave something up.
    pub(crate) unsettled: BTreeSet<String>,
    /// Whether a step has done something since this was last unset.
    pub(crate) busy: bool,
    /// Services that have written something since their relay last found nothing to do.
    pub(crate) unrelayed: BTreeSet<Name>,
    /// Services that have not read the event store to its end since it last grew.
    pub(crate) unread: BTreeSet<Name>,
    pub(crate) location: Location,
    pub(crate) store: EventStore,
    store_clock: OwnClock,
    heard_up_to: Position,
    /// Services whose consumer was sent back and has not saved a checkpoint since.
    rewound: Vec<Name>,
    /// Whether the event store is, or was, not the one that consumers knew.
    store_replaced: bool,
    /// The files of the event store as they were once; none if there is no copy.
    older_store: Vec<(String, Vec<u8>)>,
    folder: TempDir,
}

impl World {
    /// A new world in a folder of its own, with one replica of each service.
    pub(crate) async fn new(
        template: &Template,
        seed: u64,
        keep_text: bool,
    ) -> anyhow::Result<Self> {
        let mut chance = Chance::new(seed);
        let ids = chance::ids(seed);
        let folder = template.copy()?;
        let location = Location::Folder(folder.path().to_owned());
        let (clock, store_clock) = OwnClock::new(BEGINNING);
        let store = open_store(&location, clock, &ids).await?;
        let carrier = if chance.percent(50) { CarrierMode::Manual } else { CarrierMode::Simulated };
        let packing = Duration::from_millis(*chance.pick(&[0, 0, 500, 3_000]));
        let transit = Duration::from_secs(2);
        let deadline = Duration::from_secs(*chance.pick(&[20, 900]));
        let mut world = Self {
            chance,
            log: Log::new(keep_text),
            tally: Tally::of_one(),
            ids,
            now: BEGINNING,
            order: Site::new(waybill_order::Settings { deadline }),
            inventory: Site::new(()),
            user: Site::new(()),
            logistics: Site::new(waybill_logistics::Settings { carrier, packing, transit }),
            watch: Watch::open(folder.path()).await?,
            parcels: Vec::new(),
            ambush: None,
            retrying: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            busy: false,
            unrelayed: BTreeSet::new(),
            unread: BTreeSet::new(),
            location,
            store,
            store_clock,
            heard_up_to: Position(0),
            rewound: Vec::new(),
            store_replaced: false,
            older_store: Vec::new(),
            folder,
        };
        for name in Name::ALL {
            world.open(*name, 0).await?;
        }
        Ok(world)
    }

    /// Opens a replica. Its relay takes one step before anything else, as in the program.
    pub(crate) async fn open(&mut self, name: Name, index: usize) -> anyhow::Result<()> {
        self.log.line(format_args!("{name}/{index} opens"));
        let (location, store) = (self.location.clone(), self.store.clone());
        let (now, ids) = (self.now, self.ids.clone());
        at!(self, name, site => site.open(index, &location, store, now, &ids).await)?;
        self.step(name, index, Kind::Relay, None).await
    }

    /// Ends a replica, wherever it is.
    pub(crate) async fn end(&mut self, name: Name, index: usize) -> anyhow::Result<()> {
        self.log.line(format_args!("{name}/{index} ends"));
        at!(self, name, site => site.end(index).await);
        self.collect_answers(name)
    }

    /// Lets a replica take a step.
    pub(crate) async fn step(
        &mut self,
        name: Name,
        index: usize,
        kind: Kind,
        fault: Option<(Fault, usize)>,
    ) -> anyhow::Result<()> {
        let planned = Planned { fault, ambush: self.ambush };
        let (stepped, happened) = at!(self, name, site => {
            let Some(replica) = &mut site.replicas[index] else { return Ok(()) };
            replica.step(kind, planned).await
        });
        self.stepped(name, index, kind, stepped, happened).await
    }

    /// Lets a paused replica go on.
    pub(crate) async fn wake(&mut self, name: Name, index: usize) -> anyhow::Result<()> {
        let (kind, overtaken, (stepped, happened)) = at!(self, name, site => {
            let Some(replica) = &mut site.replicas[index] else { return Ok(()) };
            let Some(kind) = replica.paused() else { return Ok(()) };
            (kind, replica.overtaken, replica.wake().await)
        });
        self.log.line(format_args!("{name}/{index} wakes, overtaken: {overtaken}"));
        if overtaken {
            let late = kind == Kind::Relay;
            self.tally.reach(if late { Branch::RelayWokeLate } else { Branch::WokeLate });
        }
        self.stepped(name, index, kind, stepped, happened).await
    }

    async fn stepped(
        &mut self,
        name: Name,
        index: usize,
        kind: Kind,
        stepped: Stepped,
        happened: Vec<(Reached, Fault)>,
    ) -> anyhow::Result<()> {
        self.tally.steps += 1;
        self.log.line(format_args!("{name}/{index} {kind:?}: {stepped:?} {happened:?}"));
        for (reached, fault) in &happened {
            self.tally.fault(reached.point, *fault);
            self.ambush = self.ambush.filter(|ambush| *ambush != (reached.point, *fault));
        }
        let nothing = matches!(stepped, Stepped::Ended(Ok(Step::Idle))) && happened.is_empty();
        match stepped {
            Stepped::Ended(Ok(Step::Did(did))) if did > 0 => {
                self.busy = true;
                self.overtake(name, index, kind);
                if kind == Kind::Relay {
                    self.unread.extend(Name::ALL);
                } else {
                    self.unrelayed.insert(name);
                }
            }
            Stepped::Ended(Ok(Step::Idle)) => match kind {
                Kind::Relay => drop(self.unrelayed.remove(&name)),
                Kind::Events(_) => drop(self.unread.remove(&name)),
                Kind::Retries(_) => drop(self.retrying.remove(&name)),
                _ => {}
            },
            Stepped::Ended(Ok(Step::Did(_))) | Stepped::Paused => self.busy = true,
            Stepped::Ended(Err(StoreError::Diverged(divergence))) => {
                self.busy = true;
                ensure!(self.store_replaced, "{name}/{index} {kind:?}: {divergence}");
                self.tally.reach(Branch::Refused);
                self.rewind(name).await?;
            }
            Stepped::Ended(Err(error)) => {
                self.busy = true;
                let excused = error.is_passing() && !happened.is_empty();
                ensure!(excused, "{name}/{index} {kind:?} failed by itself: {error}");
            }
            Stepped::Died => {
                self.busy = true;
                if poison::is_deadly() {
                    self.tally.reach(Branch::Deadly);
                }
                self.end(name, index).await?;
            }
        }
        self.collect_answers(name)?;
        if nothing {
            return Ok(());
        }
        let rewound = self.rewound.contains(&name);
        let checkpoint = self.watch.checkpoint(name, rewound).await?;
        if rewound && checkpoint.position > 0 {
            self.rewound.retain(|other| *other != name);
        }
        if kind == Kind::Relay {
            return self.hear().await;
        }
        self.watch.effects(name, &checkpoint, self.store_replaced).await
    }

    /// Notes for paused replicas that another one changed something.
    fn overtake(&mut self, name: Name, index: usize, kind: Kind) {
        at!(self, name, site => {
            for (other, replica) in site.replicas.iter_mut().enumerate() {
                if let Some(replica) = replica && other != index {
                    let relaying = replica.paused() == Some(Kind::Relay);
                    replica.overtaken |= relaying == (kind == Kind::Relay);
                }
            }
        });
    }

    /// Reads what is new in the event store.
    async fn hear(&mut self) -> anyhow::Result<()> {
        let filter = Filter { after: self.heard_up_to, ..Filter::default() };
        for StoredEvent { position, recorded_at, envelope, .. } in
            self.store.find(&filter, ALL_EVENTS).await?
        {
            self.log.line(format_args!(
                "  {position} {} {} {} v{} {} by {} recorded {}",
                envelope.id,
                envelope.kind,
                envelope.stream,
                envelope.version,
                envelope.time.0,
                envelope.causation,
                recorded_at.0,
            ));
            self.heard_up_to = position;
            let event = Event::read(&envelope).context("an event that was published")?;
            if let Event::Logistics(LogisticsEvent::Created(parcel)) = event {
                let known = (parcel.order_id, parcel.shipment_id);
                if !self.parcels.contains(&known) {
                    self.parcels.push(known);
                }
            }
        }
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.show_time();
    }

    /// Sets one clock ahead or back by so much; all others go on.
    pub(crate) fn set_off(&mut self, name: Option<Name>, index: usize, by: i64) {
        let clock = match name {
            None => Some(&mut self.store_clock),
            Some(name) => at!(self, name, site => {
                site.replicas[index].as_mut().map(Replica::clock)
            }),
        };
        if let Some(clock) = clock {
            clock.off_by = by;
        }
        self.show_time();
    }

    fn show_time(&mut self) {
        let now = self.now;
        self.store_clock.show(now);
        for name in Name::ALL {
            at!(self, *name, site => site.show_time(now));
        }
    }

    /// Sends a service's consumer back to the beginning, with the service stopped.
    pub(crate) async fn rewind(&mut self, name: Name) -> anyhow::Result<()> {
        self.log.line(format_args!("{name} is rewound"));
        self.tally.reach(Branch::Rewound);
        for index in 0..crate::site::REPLICAS {
            at!(self, name, site => site.end(index).await);
        }
        let (clock, _) = Clock::manual(self.now);
        match name {
            Name::Order => fold::rewind::<OrderService>(&self.location, &clock).await?,
            Name::Inventory => fold::rewind::<InventoryService>(&self.location, &clock).await?,
            Name::User => fold::rewind::<UserService>(&self.location, &clock).await?,
            Name::Logistics => fold::rewind::<LogisticsService>(&self.location, &clock).await?,
        }
        self.rewound.push(name);
        self.collect_answers(name)
    }

    /// Ends every process, and closes the event store.
    pub(crate) async fn end_all(&mut self) -> anyhow::Result<()> {
        for name in Name::ALL {
            for index in 0..crate::site::REPLICAS {
                self.end(*name, index).await?;
            }
        }
        self.store.close().await;
        Ok(())
    }

    /// Ends the world; what was reached in it, and what happened.
    pub(crate) async fn close(mut self) -> anyhow::Result<(Tally, Log)> {
        self.end_all().await?;
        self.watch.close().await?;
        self.tally.micros = self.now.0 - BEGINNING.0;
        Ok((self.tally, self.log))
    }

    /// Opens the event store again after everything ended; services are opened one by one.
    pub(crate) async fn begin_again(&mut self) -> anyhow::Result<()> {
        let (clock, own) = OwnClock::new(self.now);
        self.store_clock = own;
        self.store = open_store(&self.location, clock, &self.ids).await?;
        Ok(())
    }

    /// Keeps a copy of the event store as it is: both its files, between two transactions.
    pub(crate) fn back_up_store(&mut self) -> anyhow::Result<()> {
        self.log.line(format_args!("the event store is backed up"));
        let mut copy = Vec::new();
        for suffix in ["", "-wal"] {
            let name = format!("{EVENT_STORE}{suffix}");
            let file = self.folder.path().join(&name);
            if file.exists() {
                copy.push((name, std::fs::read(file)?));
            }
        }
        self.older_store = copy;
        Ok(())
    }

    /// Loses the event store, or brings back an older copy of it, with everything ended.
    pub(crate) async fn replace_store(&mut self) -> anyhow::Result<()> {
        let older = std::mem::take(&mut self.older_store);
        self.log.line(format_args!("the event store is lost; files of a copy: {}", older.len()));
        self.store_replaced = true;
        self.heard_up_to = Position(0);
        self.watch.let_go_of_store().await?;
        for suffix in ["", "-wal", "-shm"] {
            let file = self.folder.path().join(format!("{EVENT_STORE}{suffix}"));
            if file.exists() {
                std::fs::remove_file(file)?;
            }
        }
        if older.is_empty() {
            self.tally.reach(Branch::StoreLost);
            // Its tables must be there for the watch to find them.
            self.begin_again().await?;
            self.store.close().await;
        } else {
            self.tally.reach(Branch::StoreRestored);
            for (name, bytes) in older {
                std::fs::write(self.folder.path().join(name), bytes)?;
            }
        }
        self.watch.find_store(self.folder.path()).await
    }
}

async fn open_store(location: &Location, clock: Clock, ids: &Ids) -> anyhow::Result<EventStore> {
    Ok(EventStore::open(location, clock, ids, Migrations::Apply).await?)
}
