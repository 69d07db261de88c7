//! The rules of parcels: given what happened, when something comes, then that follows.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::time::Duration;

use waybill_contract::logistics::{
    CarrierMode, ShipmentCancelled, ShipmentCreated, ShipmentDelivered, ShipmentDispatched,
    ShipmentFailed, ShipmentInTransit,
};
use waybill_contract::order::{CancelRequested, OrderConfirmed};
use waybill_contract::{Address, Event, Line, LogisticsEvent, Money, OrderId, ShipmentId, Text};
use waybill_logistics::{
    Command, LogisticsService, LogisticsTables, RecordTracking, Refusal, Settings, Shipment,
    Status, Timer, TrackingStatus,
};
use waybill_runtime::{
    Context, EventId, Kind, Message, Position, Recorded, Row, Service, Tables as _, TimerChange,
    Timestamp,
};

const NOW: Timestamp = Timestamp(1_760_000_000_000_000);
const EARLIER: Timestamp = Timestamp(NOW.0 - 60_000_000);

type Incoming = Message<LogisticsService>;

fn order_id() -> OrderId {
    "01900000-0000-7000-8000-000000000001".parse().unwrap()
}

/// The parcel of the events that were before.
fn parcel() -> ShipmentId {
    "01900000-0000-7000-9abc-000000000002".parse().unwrap()
}

/// The id that a decision may give away.
fn fresh() -> ShipmentId {
    "01900000-0000-7000-8000-000000000003".parse().unwrap()
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn lines() -> Vec<Line> {
    let unit_price = Money { amount: 1999.try_into().unwrap(), currency: "EUR".parse().unwrap() };
    let sku = "TEA-500".parse().unwrap();
    vec![Line { sku, name: text("Tea"), quantity: 2.try_into().unwrap(), unit_price }]
}

fn address() -> Address {
    Address {
        name: text("Ada Lovelace"),
        line1: text("12 St James's Square"),
        line2: None,
        city: text("London"),
        postal_code: text("SW1Y 4JH"),
        country: text("GB"),
    }
}

fn created() -> LogisticsEvent {
    let (shipment_id, order_id, lines, ship_to) = (parcel(), order_id(), lines(), address());
    ShipmentCreated { shipment_id, order_id, lines, ship_to, dispatch_at: NOW }.into()
}

fn dispatched_then(in_transit: Option<u64>, deliver: Option<u64>) -> LogisticsEvent {
    let after = |seconds| NOW.plus(Duration::from_secs(seconds));
    ShipmentDispatched {
        shipment_id: parcel(),
        order_id: order_id(),
        carrier: "Waybill Parcel".to_owned(),
        tracking_number: "WB9ABC000000000002".to_owned(),
        mode: if deliver.is_some() { CarrierMode::Simulated } else { CarrierMode::Manual },
        in_transit_at: in_transit.map(after),
        deliver_at: deliver.map(after),
    }
    .into()
}

fn dispatched() -> LogisticsEvent {
    dispatched_then(Some(1), Some(2))
}

fn in_transit(location: Option<&str>, note: Option<&str>) -> LogisticsEvent {
    let (location, note) = (location.map(text), note.map(text));
    ShipmentInTransit { shipment_id: parcel(), order_id: order_id(), location, note }.into()
}

fn delivered(location: Option<&str>, note: Option<&str>) -> LogisticsEvent {
    ShipmentDelivered {
        shipment_id: parcel(),
        order_id: order_id(),
        carrier: "Waybill Parcel".to_owned(),
        tracking_number: "WB9ABC000000000002".to_owned(),
        location: location.map(text),
        note: note.map(text),
    }
    .into()
}

fn failed(reason: &str, location: Option<&str>) -> LogisticsEvent {
    let (reason, location) = (text(reason), location.map(text));
    ShipmentFailed { shipment_id: parcel(), order_id: order_id(), reason, location }.into()
}

fn cancelled(shipment_id: ShipmentId) -> LogisticsEvent {
    ShipmentCancelled { shipment_id, order_id: order_id() }.into()
}

fn confirmed() -> Incoming {
    let customer_id = "01900000-0000-7000-8000-000000000009".parse().unwrap();
    let (order_id, lines, ship_to) = (order_id(), lines(), address());
    Message::Heard(Event::Order(OrderConfirmed { order_id, customer_id, lines, ship_to }.into()))
}

fn cancel_requested() -> Incoming {
    let request = CancelRequested { order_id: order_id(), comment: None };
    Message::Heard(Event::Order(request.into()))
}

fn due(timer: fn(OrderId) -> Timer) -> Incoming {
    Message::Due(timer(order_id()))
}

fn report(status: TrackingStatus, location: Option<&str>, note: Option<&str>) -> Incoming {
    Message::Command(Command::RecordTracking(RecordTracking {
        order_id: order_id(),
        shipment_id: parcel(),
        status,
        location: location.map(text),
        note: note.map(text),
    }))
}

fn not_on_its_way(status: Status) -> Refusal {
    Refusal::NotOnItsWay { shipment_id: parcel(), status }
}

/// What happened before, and under which settings the next thing comes.
struct Given {
    tables: LogisticsTables,
    settings: Settings,
}

fn given(history: &[LogisticsEvent]) -> Given {
    let mut tables = LogisticsTables::default();
    for event in history {
        tables.evolve(&Recorded { id: EventId(fresh().0), time: EARLIER, event });
    }
    Given { tables, settings: Settings::default() }
}

impl Given {
    fn set(mut self, carrier: CarrierMode, packing_seconds: u64, transit_seconds: u64) -> Self {
        let (packing, transit) = (packing_seconds, transit_seconds);
        let seconds = Duration::from_secs;
        self.settings = Settings { carrier, packing: seconds(packing), transit: seconds(transit) };
        self
    }

    #[track_caller]
    fn when(&self, message: &Incoming) -> Result<Vec<LogisticsEvent>, Refusal> {
        let (settings, fresh_id, position) = (&self.settings, fresh().0, Position(7));
        let mut untouched = LogisticsTables::default();
        LogisticsService::concerns(message, &mut untouched);
        assert!(untouched.shipments.is_wanting(), "it asks for the parcel's row");
        let context = Context { now: NOW, fresh_id, position, settings };
        LogisticsService::decide(message, &self.tables, &context)
    }

    fn row(&self) -> &Shipment {
        self.tables.shipments.get(&order_id()).unwrap()
    }
}

#[test]
fn a_confirmed_order_gets_a_parcel_that_leaves_once_packed() {
    let dispatch_at = NOW.plus(Duration::from_secs(30));
    let (shipment_id, order_id) = (fresh(), order_id());
    let created =
        ShipmentCreated { shipment_id, order_id, lines: lines(), ship_to: address(), dispatch_at };
    let packing = given(&[]).set(CarrierMode::Simulated, 30, 2);
    assert_eq!(packing.when(&confirmed()), Ok(vec![created.clone().into()]));
    let (key, timer) = (format!("pack-{order_id}"), Timer::Pack(order_id));
    assert_eq!(
        LogisticsService::timers(&created.into()),
        [TimerChange::Set { key, due_at: dispatch_at, timer }]
    );
}

#[test]
fn an_order_confirmed_twice_has_one_parcel() {
    assert_eq!(given(&[created()]).when(&confirmed()), Ok(vec![]));
    assert_eq!(given(&[created(), dispatched()]).when(&confirmed()), Ok(vec![]));
}

#[test]
fn a_parcel_that_is_being_packed_does_not_leave_once_its_order_is_to_be_cancelled() {
    let packing = given(&[created()]);
    assert_eq!(packing.when(&cancel_requested()), Ok(vec![cancelled(parcel())]));
    let stopped = given(&[created(), cancelled(parcel())]);
    assert_eq!(stopped.when(&cancel_requested()), Ok(vec![]));
    assert_eq!(stopped.when(&due(Timer::Pack)), Ok(vec![]));
    assert_eq!((stopped.row().status, stopped.row().version.0), (Status::Cancelled, 2));
}

#[test]
fn a_cancel_that_overtakes_the_confirmation_leaves_a_tombstone_that_is_never_packed() {
    assert_eq!(given(&[]).when(&cancel_requested()), Ok(vec![cancelled(fresh())]));
    let tombstone = given(&[cancelled(fresh())]);
    assert_eq!(tombstone.when(&confirmed()), Ok(vec![]));
    assert_eq!(tombstone.when(&cancel_requested()), Ok(vec![]));
    let row = tombstone.row();
    assert_eq!((row.id, row.status, row.created_at), (fresh(), Status::Cancelled, EARLIER));
    assert_eq!((&row.lines.0, &row.ship_to.0), (&vec![], &None));
}

#[test]
fn a_parcel_that_left_is_not_called_back() {
    for seen in [vec![], vec![in_transit(None, None)], vec![delivered(None, None)]] {
        let history = [vec![created(), dispatched()], seen].concat();
        assert_eq!(given(&history).when(&cancel_requested()), Ok(vec![]));
    }
}

#[test]
fn a_packed_parcel_leaves_with_a_tracking_number_and_the_carriers_plan() {
    let packed = given(&[created()]);
    assert_eq!(packed.when(&due(Timer::Pack)), Ok(vec![dispatched()]));
    let at_once = given(&[created()]).set(CarrierMode::Simulated, 0, 0);
    assert_eq!(at_once.when(&due(Timer::Pack)), Ok(vec![dispatched_then(None, Some(0))]));
    let by_hand = given(&[created()]).set(CarrierMode::Manual, 0, 2);
    assert_eq!(by_hand.when(&due(Timer::Pack)), Ok(vec![dispatched_then(None, None)]));
    let left = given(&[created(), dispatched()]);
    assert_eq!(left.row().carrier, "Waybill Parcel");
    assert_eq!(left.row().tracking_number, "WB9ABC000000000002");
}

#[test]
fn the_simulated_carrier_passes_and_then_delivers_in_the_town_of_the_address() {
    let left = given(&[created(), dispatched()]);
    let passed = in_transit(Some("London"), None);
    assert_eq!(left.when(&due(Timer::InTransit)), Ok(vec![passed.clone()]));
    let arrived = delivered(Some("London"), None);
    assert_eq!(left.when(&due(Timer::Deliver)), Ok(vec![arrived.clone()]));
    let on_its_way = given(&[created(), dispatched(), passed]);
    assert_eq!(on_its_way.when(&due(Timer::Deliver)), Ok(vec![arrived.clone()]));
    assert_eq!(given(&[created(), dispatched(), arrived]).row().status, Status::Delivered);
}

#[test]
fn a_carrier_may_report_as_often_as_it_sees_the_parcel() {
    let left = given(&[created(), dispatched_then(None, None)]);
    let first = in_transit(Some("Dover"), Some("customs"));
    let seen = report(TrackingStatus::InTransit, Some("Dover"), Some("customs"));
    assert_eq!(left.when(&seen), Ok(vec![first.clone()]));
    let silent = in_transit(None, None);
    let again = given(&[created(), dispatched(), first.clone()]);
    assert_eq!(
        again.when(&report(TrackingStatus::InTransit, None, None)),
        Ok(vec![silent.clone()])
    );
    let twice = given(&[created(), dispatched(), first, silent]);
    assert_eq!(twice.row().location, Some(text("Dover")), "it stays where it was last seen");
    assert_eq!((&twice.row().note, twice.row().version.0), (&None, 4));
}

#[test]
fn a_carrier_delivers_or_fails_in_either_mode_and_a_failure_has_a_reason() {
    for plan in [dispatched(), dispatched_then(None, None)] {
        let left = given(&[created(), plan]);
        assert_eq!(
            left.when(&report(TrackingStatus::Delivered, Some("porch"), None)),
            Ok(vec![delivered(Some("porch"), None)])
        );
        assert_eq!(
            left.when(&report(TrackingStatus::Failed, None, Some("lost at sea"))),
            Ok(vec![failed("lost at sea", None)])
        );
        assert_eq!(
            left.when(&report(TrackingStatus::Failed, Some("Dover"), None)),
            Ok(vec![failed("the carrier reports a failure", Some("Dover"))])
        );
    }
    let lost = given(&[created(), dispatched(), failed("lost at sea", None)]);
    assert_eq!((lost.row().status, &lost.row().note), (Status::Failed, &Some(text("lost at sea"))));
}

#[test]
fn a_report_on_a_parcel_that_did_not_leave_or_came_to_an_end_is_refused() {
    let ends = [
        (vec![created()], Status::Created),
        (vec![created(), cancelled(parcel())], Status::Cancelled),
        (vec![created(), dispatched(), delivered(None, None)], Status::Delivered),
        (vec![created(), dispatched(), failed("lost", None)], Status::Failed),
    ];
    for (history, status) in ends {
        for reported in TrackingStatus::ALL {
            let refused = given(&history).when(&report(*reported, None, None));
            assert_eq!(refused, Err(not_on_its_way(status)), "{reported} when {status}");
        }
    }
}

#[test]
fn a_report_on_a_parcel_that_is_not_the_orders_is_refused() {
    let unknown = Err(Refusal::UnknownShipment(parcel()));
    let seen = || report(TrackingStatus::InTransit, None, None);
    assert_eq!(given(&[]).when(&seen()), unknown);
    assert_eq!(given(&[cancelled(fresh())]).when(&seen()), unknown);
}

#[test]
fn a_report_by_hand_clears_only_the_timers_that_have_nothing_left_to_do() {
    let clear = |name: &str| TimerChange::Clear { key: format!("{name}-{}", order_id()) };
    let ended = [clear("pack"), clear("in_transit"), clear("deliver")];
    assert_eq!(LogisticsService::timers(&in_transit(None, None)), [clear("in_transit")]);
    assert_eq!(LogisticsService::timers(&delivered(None, None)), ended);
    assert_eq!(LogisticsService::timers(&failed("lost", None)), ended);
    assert_eq!(LogisticsService::timers(&cancelled(parcel())), ended);
    assert_eq!(LogisticsService::timers(&dispatched_then(None, None)), [clear("pack")]);
}

#[test]
fn a_command_is_about_the_parcels_version_and_answers_with_the_parcel() {
    let Message::Command(command) = report(TrackingStatus::InTransit, None, None) else { panic!() };
    assert_eq!(LogisticsService::version(&command, &given(&[]).tables), None);
    let seen = given(&[created(), dispatched(), in_transit(Some("Dover"), None)]);
    assert_eq!(LogisticsService::version(&command, &seen.tables), Some(seen.row().version));
    let (settings, fresh_id, position) = (&seen.settings, fresh().0, Position(7));
    let context = Context { now: NOW, fresh_id, position, settings };
    let answer = LogisticsService::answer(&command, &seen.tables, &context);
    assert_eq!((answer.status, answer.version.0, answer.location.as_str()), (200, 3, ""));
    for part in [
        format!(r#""id":"{}","order_id":"{}","status":"in_transit""#, parcel(), order_id()),
        r#""carrier":"Waybill Parcel","tracking_number":"WB9ABC000000000002""#.to_owned(),
        r#""location":"Dover","note":null"#.to_owned(),
        r#""lines":[{"sku":"TEA-500","name":"Tea","quantity":2}]"#.to_owned(),
    ] {
        assert!(answer.body.contains(&part), "{part} in {}", answer.body);
    }
}

#[test]
fn the_migration_declares_every_column_of_the_row() {
    let sql = LogisticsService::MIGRATIONS[0].sql;
    for (column, kind) in Shipment::COLUMNS {
        let kind = if *kind == Kind::Text { "text" } else { "bigint" };
        assert!(sql.contains(&format!("\n    {column} {kind} not null")), "{column} is {kind}");
    }
}
