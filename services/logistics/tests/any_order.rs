//! What holds for parcels whatever comes, in whatever order, and however often.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use waybill_contract::logistics::CarrierMode;
use waybill_contract::order::{CancelRequested, OrderConfirmed};
use waybill_contract::{Address, Event, LogisticsEvent, OrderId, ShipmentId, Text};
use waybill_logistics::{
    Command, LogisticsService, LogisticsTables, RecordTracking, Settings, Shipment, Status, Timer,
    TrackingStatus,
};
use waybill_runtime::{
    Context, Event as _, EventId, Message, Position, Recorded, Row, Service, Tables as _,
    TimerChange, Timestamp,
};

const ORDERS: u64 = 2;

/// Something that may come, about one of the orders.
#[derive(Clone, Debug)]
enum Step {
    Confirm(u64),
    RequestCancel(u64),
    Report(u64, TrackingStatus, bool),
    /// One of the timers that are set comes due.
    Fire(Index),
    /// A timer that was cleared comes due all the same: it was read before it was cleared.
    FireCleared(Index),
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let order = 0..ORDERS;
    let status = proptest::sample::select(TrackingStatus::ALL);
    let step = prop_oneof![
        3 => order.clone().prop_map(Step::Confirm),
        1 => order.clone().prop_map(Step::RequestCancel),
        3 => (order, status, any::<bool>()).prop_map(|(o, s, said)| Step::Report(o, s, said)),
        4 => any::<Index>().prop_map(Step::Fire),
        1 => any::<Index>().prop_map(Step::FireCleared),
        1 => (0_u64..3_000).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
    ];
    proptest::collection::vec(step, 0..60)
}

fn settings() -> impl Strategy<Value = Settings> {
    let carrier = proptest::sample::select(CarrierMode::ALL);
    let (packing, transit) =
        (prop_oneof![Just(0_u64), 1..9_u64], prop_oneof![Just(0_u64), 1..9_u64]);
    (carrier, packing, transit).prop_map(|(carrier, packing, transit)| Settings {
        carrier,
        packing: Duration::from_micros(packing),
        transit: Duration::from_micros(transit),
    })
}

fn order_id(order: u64) -> OrderId {
    format!("01900000-0000-7000-8000-{order:012x}").parse().unwrap()
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn confirmed(order_id: OrderId) -> Message<LogisticsService> {
    let ship_to = Address {
        name: text("Ada Lovelace"),
        line1: text("12 St James's Square"),
        line2: None,
        city: text("London"),
        postal_code: text("SW1Y 4JH"),
        country: text("GB"),
    };
    let customer_id = "01900000-0000-7000-8000-0000000000ff".parse().unwrap();
    let confirmed = OrderConfirmed { order_id, customer_id, lines: Vec::new(), ship_to };
    Message::Heard(Event::Order(confirmed.into()))
}

/// The service with what the runtime keeps for it.
struct World {
    settings: Settings,
    now: Timestamp,
    tables: LogisticsTables,
    history: Vec<(Timestamp, LogisticsEvent)>,
    timers: BTreeMap<String, Timer>,
    cleared: Vec<Timer>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: Timestamp(1_760_000_000_000_000),
            tables: LogisticsTables::default(),
            history: Vec::new(),
            timers: BTreeMap::new(),
            cleared: Vec::new(),
        }
    }

    /// Says how many events followed; a refusal is none.
    fn take(&mut self, message: &Message<LogisticsService>) -> usize {
        let fresh = format!("01900000-0000-7000-9000-{:012x}", self.history.len());
        let context = Context {
            now: self.now,
            fresh_id: fresh.parse::<ShipmentId>().unwrap().0,
            position: Position(1).plus(self.history.len()),
            settings: &self.settings,
        };
        let decision = LogisticsService::decide(message, &self.tables, &context);
        let events = decision.unwrap_or_default();
        for event in &events {
            self.tables.evolve(&recorded(self.now, event));
            self.history.push((self.now, event.clone()));
            for change in LogisticsService::timers(event) {
                self.change(change);
            }
        }
        events.len()
    }

    fn change(&mut self, change: TimerChange<Timer>) {
        match change {
            TimerChange::Set { key, timer, .. } => {
                self.timers.insert(key, timer);
            }
            TimerChange::Clear { key } => self.cleared.extend(self.timers.remove(&key)),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Confirm(order) => {
                self.take(&confirmed(order_id(*order)));
            }
            Step::RequestCancel(order) => {
                let request = CancelRequested { order_id: order_id(*order), comment: None };
                self.take(&Message::Heard(Event::Order(request.into())));
            }
            Step::Report(order, status, said) => self.report(order_id(*order), *status, *said),
            Step::Fire(index) if !self.timers.is_empty() => {
                let keys: Vec<String> = self.timers.keys().cloned().collect();
                let key = index.get(&keys);
                self.fire(key);
            }
            Step::FireCleared(index) if !self.cleared.is_empty() => {
                let timer = index.get(&self.cleared).clone();
                assert_eq!(self.take(&Message::Due(timer)), 0, "a cleared timer does nothing");
            }
            Step::Fire(_) | Step::FireCleared(_) => {}
            Step::Pass(time) => self.now = self.now.plus(*time),
        }
    }

    fn report(&mut self, order_id: OrderId, status: TrackingStatus, said: bool) {
        let parcel = self.tables.shipments.get(&order_id);
        let Some(shipment_id) = parcel.map(|parcel| parcel.id) else { return };
        let (location, note) = (said.then(|| text("Dover")), said.then(|| text("seen")));
        let report = RecordTracking { order_id, shipment_id, status, location, note };
        self.take(&Message::Command(Command::RecordTracking(report)));
    }

    fn fire(&mut self, key: &str) {
        let timer = self.timers[key].clone();
        assert_ne!(self.take(&Message::Due(timer)), 0, "{key} was set and had nothing to do");
        assert!(!self.timers.contains_key(key), "{key} fired and is still set");
    }

    fn events_of(&self, order_id: OrderId) -> Vec<&LogisticsEvent> {
        let of = |event: &&LogisticsEvent| event.order() == Some(order_id.0);
        self.history.iter().map(|(_, event)| event).filter(of).collect()
    }

    fn check(&self, order_id: OrderId) {
        let events = self.events_of(order_id);
        let count = |kinds: &[&str]| events.iter().filter(|e| kinds.contains(&e.kind())).count();
        assert!(count(&["shipment.created"]) <= 1, "one parcel an order");
        assert!(count(&["shipment.dispatched", "shipment.cancelled"]) <= 1, "leaves or does not");
        let ends = ["shipment.delivered", "shipment.failed", "shipment.cancelled"];
        assert!(count(&ends) <= 1, "one end");
        assert!(events.windows(2).all(|pair| pair[0].stream() == pair[1].stream()), "one stream");
        let set = self.timers.keys().any(|key| key.ends_with(&order_id.to_string()));
        let last = events.last().map(|event| event.kind());
        if count(&ends) == 1 {
            assert!(ends.contains(&last.unwrap()), "nothing follows the end");
            assert!(!set, "no timer is left at the end");
        }
        let row = self.tables.shipments.get(&order_id);
        let status = row.map(|parcel| format!("shipment.{}", parcel.status));
        assert_eq!(status.as_deref(), last, "the row shows the last event");
        let times = row.map(|parcel| (parcel.created_at, parcel.updated_at));
        let of = |(_, event): &&(_, LogisticsEvent)| event.order() == Some(order_id.0);
        let mut when = self.history.iter().filter(of).map(|(time, _)| *time);
        let first = when.next();
        assert_eq!(
            times,
            first.zip(when.next_back().or(first)),
            "from the first to the last event"
        );
    }

    fn check_fold(&self) {
        let mut fold = LogisticsTables::default();
        for (time, event) in &self.history {
            let data = event.encode().unwrap();
            let read = LogisticsEvent::decode(event.kind(), event.schema(), &data).unwrap();
            fold.evolve(&recorded(*time, &read));
        }
        assert_eq!(fold.shipments.present(), self.tables.shipments.present());
        for row in fold.shipments.present() {
            assert_eq!(Shipment::from_cells(row.cells()).unwrap(), *row, "as it is stored");
        }
    }
}

fn recorded(time: Timestamp, event: &LogisticsEvent) -> Recorded<'_, LogisticsEvent> {
    Recorded { id: EventId(order_id(0).0), time, event }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_parcel_keeps_the_rules_after_every_step(settings in settings(), steps in steps()) {
        let mut world = World::new(settings);
        for step in &steps {
            world.step(step);
            for order in 0..ORDERS {
                world.check(order_id(order));
            }
        }
        world.check_fold();
    }

    #[test]
    fn every_parcel_comes_to_an_end_by_its_timers_alone_unless_its_carrier_is_moved_by_hand(
        settings in settings(),
        steps in steps(),
    ) {
        let mut world = World::new(settings);
        for step in &steps {
            world.step(step);
        }
        while let Some(key) = world.timers.keys().next().cloned() {
            world.fire(&key);
        }
        for parcel in world.tables.shipments.present() {
            let ended = [Status::Delivered, Status::Failed, Status::Cancelled].contains(&parcel.status);
            let waits_for_hand = world.settings.carrier == CarrierMode::Manual;
            prop_assert!(ended || waits_for_hand, "{} is {}", parcel.id, parcel.status);
            prop_assert!(parcel.status != Status::Created, "{} never left", parcel.id);
        }
    }
}
