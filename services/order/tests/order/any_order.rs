//! What holds of orders whatever reaches them, in whatever order and however often.

use std::collections::BTreeMap;

use proptest::prelude::*;
use waybill_contract::OrderEvent;
use waybill_contract::user::{DeclineReason, NotificationKind};
use waybill_order::{Order, OrderService, OrderTables, Secured, Status, Timer};
use waybill_runtime::{Event as _, Message, Service as _, TimerChange, Timestamp};

use crate::facts::*;

const ORDERS: usize = 3;

/// What may reach the service about one of its orders, or about a product.
#[derive(Clone, Copy, Debug)]
enum Step {
    Place,
    Cancel,
    Deadline,
    Reserved,
    OutOfStock,
    Authorized,
    Declined,
    Dispatched,
    Delivered,
    Failed,
    ParcelCancelled,
    Told(NotificationKind),
    Priced(i64),
}

impl Step {
    fn message(self, number: usize) -> Message<OrderService> {
        let order_id = order(number);
        match self {
            Self::Place => place(&[("TEA", 2)]),
            Self::Cancel => cancel_of(order_id, Some("changed my mind")),
            Self::Deadline => Message::Due(Timer::Expire(order_id)),
            Self::Reserved => heard(reserved_for(order_id)),
            Self::OutOfStock => heard(out_of_stock_for(order_id)),
            Self::Authorized => heard(authorized_for(order_id)),
            Self::Declined => heard(declined_for(order_id, DeclineReason::InsufficientFunds)),
            Self::Dispatched => heard(dispatched_parcel_of(order_id)),
            Self::Delivered => heard(delivered_parcel_of(order_id)),
            Self::Failed => heard(failed_parcel_of(order_id)),
            Self::ParcelCancelled => heard(cancelled_parcel_of(order_id)),
            Self::Told(kind) => heard(told_of(order_id, kind)),
            Self::Priced(price) => heard(changed("TEA", price)),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Place),
        1 => Just(Step::Cancel),
        1 => Just(Step::Deadline),
        3 => Just(Step::Reserved),
        1 => Just(Step::OutOfStock),
        3 => Just(Step::Authorized),
        1 => Just(Step::Declined),
        2 => Just(Step::Dispatched),
        2 => Just(Step::Delivered),
        1 => Just(Step::Failed),
        1 => Just(Step::ParcelCancelled),
        2 => prop::sample::select(NotificationKind::ALL).prop_map(Step::Told),
        1 => (1..9_i64).prop_map(Step::Priced),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(Step, usize)>> {
    prop::collection::vec((step(), 1..=ORDERS), 0..80)
}

/// A service with its history and its timers, as the runtime would keep them.
struct House {
    tables: OrderTables,
    history: Vec<(OrderEvent, Timestamp)>,
    timers: BTreeMap<String, Timestamp>,
}

impl House {
    fn new() -> Self {
        let (tables, history) = (OrderTables::default(), Vec::new());
        let mut house = Self { tables, history, timers: BTreeMap::new() };
        house.step(Step::Priced(5), 1);
        house
    }

    /// What the step leads to. An id is fresh once.
    fn step(&mut self, step: Step, number: usize) -> Vec<OrderEvent> {
        if matches!(step, Step::Place) && self.order(number).is_some() {
            return Vec::new();
        }
        let now = Timestamp(i64::try_from(self.history.len()).unwrap() * 1_000_000);
        let context = context_for(order(number), now);
        let decision = OrderService::decide(&step.message(number), &self.tables, &context);
        let events = decision.unwrap_or_default();
        for event in &events {
            record(&mut self.tables, event, now);
            self.history.push((event.clone(), now));
            for change in OrderService::timers(event) {
                self.change(change);
            }
        }
        events
    }

    fn change(&mut self, change: TimerChange<Timer>) {
        match change {
            TimerChange::Set { key, due_at, .. } => self.timers.insert(key, due_at),
            TimerChange::Clear { key } => self.timers.remove(&key),
        };
    }

    fn order(&self, number: usize) -> Option<&Order> {
        self.tables.orders.get(&order(number))
    }

    fn events_of(&self, number: usize) -> Vec<&OrderEvent> {
        let of = |event: &&OrderEvent| event.order() == Some(order(number).0);
        self.history.iter().map(|(event, _)| event).filter(of).collect()
    }

    fn check(&self) {
        self.rows_are_the_fold_of_the_history();
        for number in 1..=ORDERS {
            self.nothing_follows_an_end(number);
            if let Some(order) = self.order(number) {
                self.the_row_agrees_with_itself(number, order);
            }
        }
        let placed = (1..=ORDERS).filter_map(|number| self.order(number));
        let placed = placed.filter(|order| order.status == Status::Placed).count();
        assert_eq!(self.timers.len(), placed, "one timer for each order that is only placed");
    }

    fn rows_are_the_fold_of_the_history(&self) {
        let mut fold = OrderTables::default();
        self.history.iter().for_each(|(event, time)| record(&mut fold, event, *time));
        assert_eq!(fold.orders.present(), self.tables.orders.present());
        assert_eq!(fold.catalogue.present(), self.tables.catalogue.present());
    }

    fn nothing_follows_an_end(&self, number: usize) {
        let events = self.events_of(number);
        let end = events.iter().position(|event| {
            matches!(
                event,
                OrderEvent::Rejected(_) | OrderEvent::Cancelled(_) | OrderEvent::Completed(_)
            )
        });
        assert!(end.is_none_or(|end| end + 1 == events.len()), "{events:?}");
    }

    fn the_row_agrees_with_itself(&self, number: usize, order: &Order) {
        assert_eq!(usize::try_from(order.version.0).unwrap(), self.events_of(number).len());
        let sum: i64 =
            order.lines.0.iter().map(|l| l.quantity.get() * l.unit_price.amount.get()).sum();
        assert_eq!(order.total.get(), sum);
        let left =
            matches!(order.status, Status::Dispatched | Status::Delivered | Status::Completed);
        assert!(!left || order.shipment_id.is_some(), "{order:?}");
        let unconfirmed =
            matches!(order.status, Status::Placed | Status::Rejected | Status::Cancelled);
        assert!(unconfirmed || order.secured == Secured::Both, "{order:?}");
        let failed = matches!(order.status, Status::Rejected | Status::Cancelled);
        assert_eq!(failed, !order.reasons.0.is_empty(), "{order:?}");
        let timer = self.timers.get(&format!("expire-{}", order.id));
        let expected = (order.status == Status::Placed).then_some(&order.expires_at);
        assert_eq!(timer, expected);
    }
}

proptest! {
    #[test]
    fn an_order_has_one_end_and_its_row_is_the_fold_of_its_events(steps in steps()) {
        let mut house = House::new();
        for (step, number) in steps {
            house.step(step, number);
            house.check();
        }
    }

    #[test]
    fn what_was_heard_a_moment_ago_changes_nothing_when_it_is_heard_again(steps in steps()) {
        let mut house = House::new();
        for (step, number) in steps {
            house.step(step, number);
            prop_assert_eq!(house.step(step, number), Vec::new());
        }
    }

    #[test]
    fn every_order_can_still_come_to_an_end(steps in steps()) {
        let mut house = House::new();
        for (step, number) in steps {
            house.step(step, number);
        }
        for number in 1..=ORDERS {
            for step in [Step::Deadline, Step::Failed, Step::Told(NotificationKind::Delivered)] {
                house.step(step, number);
            }
            let ends = [Status::Completed, Status::Rejected, Status::Cancelled];
            prop_assert!(house.order(number).is_none_or(|order| ends.contains(&order.status)));
        }
    }

    #[test]
    fn two_yes_and_an_arrival_complete_whatever_is_repeated(
        answers in Just([Step::Reserved, Step::Authorized]).prop_shuffle(),
        repeats in prop::collection::vec(1..4_usize, 6),
    ) {
        let mut house = House::new();
        house.step(Step::Place, 1);
        let told = Step::Told(NotificationKind::Delivered);
        let way = answers.into_iter().chain([Step::Dispatched, Step::Delivered, told]);
        let mut heard: Vec<Step> = Vec::new();
        for (step, times) in way.zip(repeats) {
            heard.push(step);
            // What was heard before comes again, too.
            heard.clone().into_iter().rev().take(times).for_each(|s| { house.step(s, 1); });
            house.check();
        }
        prop_assert_eq!(house.order(1).map(|order| order.status), Some(Status::Completed));
    }

    #[test]
    fn a_confirmed_order_is_completed_in_whatever_order_the_rest_is_heard(
        rest in Just([Step::Dispatched, Step::Delivered, Step::Told(NotificationKind::Delivered)])
            .prop_shuffle(),
    ) {
        let mut house = House::new();
        for step in [Step::Place, Step::Reserved, Step::Authorized].into_iter().chain(rest) {
            house.step(step, 1);
            house.check();
        }
        prop_assert_eq!(house.order(1).map(|order| order.status), Some(Status::Completed));
    }

    #[test]
    fn a_no_among_the_answers_rejects(
        answers in prop_oneof![
            Just([Step::OutOfStock, Step::Authorized]),
            Just([Step::Reserved, Step::Declined]),
            Just([Step::OutOfStock, Step::Declined]),
        ].prop_shuffle(),
    ) {
        let mut house = House::new();
        house.step(Step::Place, 1);
        for step in answers {
            house.step(step, 1);
        }
        prop_assert_eq!(house.order(1).map(|order| order.status), Some(Status::Rejected));
    }
}
