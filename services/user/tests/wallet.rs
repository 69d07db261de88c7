//! The rules of wallets: given what happened, when a message comes, then this follows.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::prelude::*;
use waybill_contract::logistics::{CarrierMode, ShipmentDelivered, ShipmentDispatched};
use waybill_contract::order::{
    CancelReason, OrderCancelled, OrderConfirmed, OrderPlaced, OrderRejected,
};
use waybill_contract::user::{
    DeclineReason, NotificationKind, PaymentAuthorized, PaymentCaptured, PaymentDeclined,
    PaymentRefunded, PaymentReleased, UserNotified, UserRegistered, WalletDeposited,
};
use waybill_contract::values::LARGEST;
use waybill_contract::{Address, Event, Money, OrderId, ShipmentId, Text, UserEvent, UserId};
use waybill_runtime::{
    Answer, Context, Event as _, EventId, Message, Position, Recorded, Row, Service as _,
    Tables as _, Timestamp, Version,
};
use waybill_user::{
    Command, Deposit, NotificationId, PaymentStatus, Refusal, RegisterUser, UserService, UserTables,
};

// Given / when / then.

/// The rows after these events, one second apart.
fn given(events: impl IntoIterator<Item = UserEvent>) -> UserTables {
    let mut tables = UserTables::default();
    for (event, second) in events.into_iter().zip(1..) {
        tables.evolve(&recorded(&event, second));
    }
    tables
}

fn recorded(event: &UserEvent, second: usize) -> Recorded<'_, UserEvent> {
    let time = Timestamp(i64::try_from(second).unwrap() * 1_000_000);
    Recorded { id: EventId(order(second).0), time, event }
}

trait When {
    fn when(&self, message: Message<UserService>) -> Then;
}

impl When for UserTables {
    fn when(&self, message: Message<UserService>) -> Then {
        Then(UserService::decide(&message, self, &context()))
    }
}

fn context() -> Context<'static, UserService> {
    Context { now: Timestamp(0), fresh_id: ada().0, position: Position(1), settings: &() }
}

struct Then(Result<Vec<UserEvent>, Refusal>);

impl Then {
    #[track_caller]
    fn then(self, expected: impl IntoIterator<Item = UserEvent>) {
        assert_eq!(self.0, Ok(Vec::from_iter(expected)));
    }

    #[track_caller]
    fn then_nothing(self) {
        self.then([]);
    }

    #[track_caller]
    fn then_refused(self, expected: Refusal) {
        assert_eq!(self.0, Err(expected));
    }
}

// Who and what is talked about.

fn order(number: usize) -> OrderId {
    format!("01937b6e-7f5a-7c3e-9a51-{number:012x}").parse().unwrap()
}

fn user(number: usize) -> UserId {
    format!("01937b6e-0000-7000-8000-{number:012x}").parse().unwrap()
}

fn ada() -> UserId {
    user(0)
}

fn money(amount: i64, currency: &str) -> Money {
    Money { amount: amount.try_into().unwrap(), currency: currency.parse().unwrap() }
}

fn euros(amount: i64) -> Money {
    money(amount, "EUR")
}

// What happened. Where nobody is named, it is Ada's.

fn registered(user_id: UserId) -> UserEvent {
    UserRegistered {
        user_id,
        name: "Ada Lovelace".parse().unwrap(),
        email: "ada@example.com".parse().unwrap(),
        currency: "EUR".parse().unwrap(),
    }
    .into()
}

fn deposited(amount: i64) -> UserEvent {
    WalletDeposited { user_id: ada(), amount: euros(amount) }.into()
}

fn authorized(number: usize, amount: i64) -> UserEvent {
    let order_id = order(number);
    PaymentAuthorized { order_id, user_id: ada(), amount: euros(amount) }.into()
}

fn declined(number: usize, reason: DeclineReason) -> UserEvent {
    PaymentDeclined { order_id: order(number), user_id: ada(), reason }.into()
}

fn captured(number: usize, amount: i64) -> UserEvent {
    let order_id = order(number);
    PaymentCaptured { order_id, user_id: ada(), amount: euros(amount) }.into()
}

fn released(number: usize, amount: Option<i64>) -> UserEvent {
    let order_id = order(number);
    PaymentReleased { order_id, user_id: ada(), amount: amount.map(euros) }.into()
}

fn refunded(number: usize, amount: i64) -> UserEvent {
    let order_id = order(number);
    PaymentRefunded { order_id, user_id: ada(), amount: euros(amount) }.into()
}

fn told(number: usize, kind: NotificationKind, news: &str) -> UserEvent {
    let order_id = order(number);
    UserNotified { user_id: ada(), order_id, kind, text: format!("Your order {order_id} {news}") }
        .into()
}

fn told_confirmed(number: usize) -> UserEvent {
    told(number, NotificationKind::Confirmed, "is confirmed and being packed.")
}

fn told_rejected(number: usize) -> UserEvent {
    told(number, NotificationKind::Rejected, "cannot be fulfilled. You pay nothing for it.")
}

fn told_dispatched(number: usize) -> UserEvent {
    let news = "is on its way with pigeon, tracking number P-1.";
    told(number, NotificationKind::Dispatched, news)
}

fn told_delivered(number: usize) -> UserEvent {
    told(number, NotificationKind::Delivered, "has arrived.")
}

fn told_cancelled(number: usize) -> UserEvent {
    told(number, NotificationKind::Cancelled, "is cancelled, as you asked.")
}

fn told_failed(number: usize) -> UserEvent {
    let news = "is cancelled: its parcel could not be delivered. You get your money back.";
    told(number, NotificationKind::Cancelled, news)
}

/// Ada with this much in her wallet.
fn ada_with(amount: i64) -> Vec<UserEvent> {
    vec![registered(ada()), deposited(amount)]
}

// What comes.

fn register() -> Message<UserService> {
    Message::Command(Command::Register(RegisterUser {
        name: "Ada Lovelace".parse().unwrap(),
        email: "ada@example.com".parse().unwrap(),
        currency: "EUR".parse().unwrap(),
    }))
}

fn deposit(amount: Money) -> Message<UserService> {
    Message::Command(Command::Deposit(Deposit { user_id: ada(), amount }))
}

fn placed_by(customer_id: UserId, number: usize, total: Money) -> Message<UserService> {
    let place: Text = "somewhere".parse().unwrap();
    Message::Heard(Event::Order(
        OrderPlaced {
            order_id: order(number),
            number: format!("W-{number}"),
            customer_id,
            lines: Vec::new(),
            total,
            ship_to: address(&place),
            expires_at: Timestamp(0),
        }
        .into(),
    ))
}

fn address(place: &Text) -> Address {
    Address {
        name: place.clone(),
        line1: place.clone(),
        line2: None,
        city: place.clone(),
        postal_code: place.clone(),
        country: place.clone(),
    }
}

fn placed(number: usize, amount: i64) -> Message<UserService> {
    placed_by(ada(), number, euros(amount))
}

fn confirmed_to(customer_id: UserId, number: usize) -> Message<UserService> {
    let ship_to = address(&"somewhere".parse().unwrap());
    let confirmed =
        OrderConfirmed { order_id: order(number), customer_id, lines: Vec::new(), ship_to };
    Message::Heard(Event::Order(confirmed.into()))
}

fn confirmed(number: usize) -> Message<UserService> {
    confirmed_to(ada(), number)
}

fn rejected_to(customer_id: UserId, number: usize) -> Message<UserService> {
    let rejected = OrderRejected { order_id: order(number), customer_id, reasons: Vec::new() };
    Message::Heard(Event::Order(rejected.into()))
}

fn rejected(number: usize) -> Message<UserService> {
    rejected_to(ada(), number)
}

fn cancelled_to(customer_id: UserId, number: usize, reason: CancelReason) -> Message<UserService> {
    let cancelled = OrderCancelled { order_id: order(number), customer_id, reason, comment: None };
    Message::Heard(Event::Order(cancelled.into()))
}

fn cancelled(number: usize) -> Message<UserService> {
    cancelled_to(ada(), number, CancelReason::Customer)
}

fn failed(number: usize) -> Message<UserService> {
    cancelled_to(ada(), number, CancelReason::ShipmentFailed)
}

fn dispatched(number: usize) -> Message<UserService> {
    Message::Heard(Event::Logistics(
        ShipmentDispatched {
            shipment_id: ShipmentId(order(number).0),
            order_id: order(number),
            carrier: "pigeon".to_owned(),
            tracking_number: "P-1".to_owned(),
            mode: CarrierMode::Manual,
            in_transit_at: None,
            deliver_at: None,
        }
        .into(),
    ))
}

fn delivered(number: usize) -> Message<UserService> {
    Message::Heard(Event::Logistics(
        ShipmentDelivered {
            shipment_id: ShipmentId(order(number).0),
            order_id: order(number),
            carrier: "pigeon".to_owned(),
            tracking_number: "P-1".to_owned(),
            location: None,
            note: None,
        }
        .into(),
    ))
}

// Users and deposits.

#[test]
fn a_user_is_registered_with_an_empty_wallet() {
    given([]).when(register()).then([registered(ada())]);
    assert_eq!(available_and_held(&given([registered(ada())])), (0, 0));
}

#[test]
fn a_deposit_can_be_spent_at_once() {
    given([registered(ada())]).when(deposit(euros(500))).then([deposited(500)]);
    assert_eq!(available_and_held(&given(ada_with(500))), (500, 0));
}

#[test]
fn a_deposit_for_nobody_is_refused() {
    given([]).when(deposit(euros(500))).then_refused(Refusal::UnknownUser(ada()));
}

#[test]
fn a_deposit_of_another_currency_is_refused() {
    let (wallet, given_currency) = ("EUR".parse().unwrap(), "USD".parse().unwrap());
    given([registered(ada())])
        .when(deposit(money(500, "USD")))
        .then_refused(Refusal::OtherCurrency { wallet, given: given_currency });
}

#[test]
fn a_wallet_fills_up_to_the_largest_amount_held_money_included_and_not_beyond() {
    let tables = given([registered(ada()), deposited(LARGEST - 10), authorized(1, 500)]);
    tables.when(deposit(euros(10))).then([deposited(10)]);
    tables.when(deposit(euros(11))).then_refused(Refusal::BalanceTooLarge);
}

#[test]
fn a_refund_to_a_wallet_that_was_filled_again_is_not_lost() {
    let full = [authorized(1, LARGEST), captured(1, LARGEST), deposited(LARGEST)];
    let history = [ada_with(LARGEST), full.to_vec()].concat();
    given(history.clone()).when(failed(1)).then([refunded(1, LARGEST), told_failed(1)]);
    let tables = given([history, vec![refunded(1, LARGEST)]].concat());
    assert_eq!(available_and_held(&tables), (2 * LARGEST, 0));
    tables.when(deposit(euros(1))).then_refused(Refusal::BalanceTooLarge);
}

// The beginning of an order.

#[test]
fn the_total_of_an_order_is_held_to_the_last_cent() {
    given(ada_with(500)).when(placed(1, 500)).then([authorized(1, 500)]);
    let tables = given([ada_with(500), vec![authorized(1, 500)]].concat());
    assert_eq!(available_and_held(&tables), (0, 500));
}

#[test]
fn an_order_that_costs_nothing_is_authorized() {
    given([registered(ada())]).when(placed(1, 0)).then([authorized(1, 0)]);
}

#[test]
fn an_order_beyond_what_is_available_is_declined() {
    let reason = DeclineReason::InsufficientFunds;
    given(ada_with(500)).when(placed(1, 501)).then([declined(1, reason)]);
}

#[test]
fn what_one_order_holds_is_not_available_to_another() {
    given([ada_with(500), vec![authorized(1, 400)]].concat())
        .when(placed(2, 101))
        .then([declined(2, DeclineReason::InsufficientFunds)]);
}

#[test]
fn an_order_in_another_currency_is_declined() {
    given(ada_with(500))
        .when(placed_by(ada(), 1, money(1, "USD")))
        .then([declined(1, DeclineReason::CurrencyMismatch)]);
}

#[test]
fn an_order_of_nobody_is_declined() {
    given([]).when(placed(1, 1)).then([declined(1, DeclineReason::UnknownCustomer)]);
}

#[test]
fn an_order_that_is_heard_of_again_is_not_paid_again() {
    let known = [
        vec![authorized(1, 100)],
        vec![declined(1, DeclineReason::InsufficientFunds)],
        vec![authorized(1, 100), captured(1, 100)],
        vec![authorized(1, 100), released(1, Some(100))],
        vec![authorized(1, 100), captured(1, 100), refunded(1, 100)],
        vec![released(1, None)],
    ];
    for history in known {
        given([ada_with(500), history].concat()).when(placed(1, 100)).then_nothing();
    }
}

// Its way and its end.

#[test]
fn a_user_is_told_that_an_order_is_confirmed() {
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history).when(confirmed(1)).then([told_confirmed(1)]);
}

#[test]
fn money_is_spent_when_the_parcel_leaves() {
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history.clone()).when(dispatched(1)).then([captured(1, 100), told_dispatched(1)]);
    assert_eq!(available_and_held(&given([history, vec![captured(1, 100)]].concat())), (400, 0));
}

#[test]
fn a_user_is_told_that_a_parcel_arrived() {
    let history = [ada_with(500), vec![authorized(1, 100), captured(1, 100)]].concat();
    given(history).when(delivered(1)).then([told_delivered(1)]);
}

#[test]
fn a_rejected_order_gives_back_what_it_held() {
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history.clone()).when(rejected(1)).then([released(1, Some(100)), told_rejected(1)]);
    let tables = given([history, vec![released(1, Some(100))]].concat());
    assert_eq!(available_and_held(&tables), (500, 0));
}

#[test]
fn a_cancelled_order_gives_back_what_it_held() {
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history).when(cancelled(1)).then([released(1, Some(100)), told_cancelled(1)]);
}

#[test]
fn a_parcel_that_fails_gives_back_what_was_spent() {
    let history = [ada_with(500), vec![authorized(1, 100), captured(1, 100)]].concat();
    given(history.clone()).when(failed(1)).then([refunded(1, 100), told_failed(1)]);
    let tables = given([history, vec![refunded(1, 100)]].concat());
    assert_eq!(available_and_held(&tables), (500, 0));
}

#[test]
fn the_end_of_a_declined_order_moves_no_money() {
    let history = [ada_with(500), vec![declined(1, DeclineReason::InsufficientFunds)]].concat();
    given(history).when(rejected(1)).then([told_rejected(1)]);
}

#[test]
fn nobody_is_told_of_the_end_of_an_order_of_nobody() {
    let history = [declined(1, DeclineReason::UnknownCustomer)];
    given(history).when(rejected(1)).then_nothing();
}

// Late, early and again.

#[test]
fn an_order_whose_end_comes_before_its_beginning_holds_nothing() {
    given(ada_with(500)).when(cancelled(1)).then([released(1, None), told_cancelled(1)]);
    given(ada_with(500)).when(rejected(1)).then([released(1, None), told_rejected(1)]);
    let tables = given([ada_with(500), vec![released(1, None)]].concat());
    assert_eq!(available_and_held(&tables), (500, 0));
    tables.when(placed(1, 100)).then_nothing();
}

#[test]
fn a_failed_order_that_is_heard_of_before_its_parcel_left_is_paid_back_once() {
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history.clone()).when(failed(1)).then([released(1, Some(100)), told_failed(1)]);
    let settled = given([history, vec![released(1, Some(100)), told_failed(1)]].concat());
    settled.when(dispatched(1)).then_nothing();
    settled.when(delivered(1)).then_nothing();
    settled.when(confirmed(1)).then_nothing();
    assert_eq!(available_and_held(&settled), (500, 0));
}

#[test]
fn a_parcel_that_arrives_before_it_is_known_to_have_left_is_paid_once() {
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history.clone()).when(delivered(1)).then([captured(1, 100), told_delivered(1)]);
    let arrived = given([history, vec![captured(1, 100), told_delivered(1)]].concat());
    arrived.when(dispatched(1)).then_nothing();
    arrived.when(confirmed(1)).then_nothing();
}

#[test]
fn a_parcel_of_an_order_that_nobody_heard_of_changes_nothing() {
    given(ada_with(500)).when(dispatched(1)).then_nothing();
    given(ada_with(500)).when(delivered(1)).then_nothing();
}

#[test]
fn each_thing_is_told_once() {
    let held = [ada_with(500), vec![authorized(1, 100)]].concat();
    let spent = [held.clone(), vec![captured(1, 100)]].concat();
    given([held, vec![told_confirmed(1)]].concat()).when(confirmed(1)).then_nothing();
    given([spent.clone(), vec![told_delivered(1)]].concat()).when(delivered(1)).then_nothing();
    given([spent, vec![refunded(1, 100), told_failed(1)]].concat()).when(failed(1)).then_nothing();
}

#[test]
fn one_order_of_a_user_does_not_keep_another_from_being_told_of() {
    let history = [ada_with(500), vec![authorized(1, 100), authorized(2, 100), told_confirmed(1)]];
    given(history.concat()).when(confirmed(2)).then([told_confirmed(2)]);
}

#[test]
fn a_cancelled_order_says_why() {
    let expired = cancelled_to(ada(), 1, CancelReason::Expired);
    let news = "is cancelled: it could not be confirmed in time.";
    let history = [ada_with(500), vec![authorized(1, 100)]].concat();
    given(history)
        .when(expired)
        .then([released(1, Some(100)), told(1, NotificationKind::Cancelled, news)]);
}

// What is asked for and what is answered.

#[test]
fn a_notification_is_found_by_its_order_and_kind() {
    let id = NotificationId { order_id: order(1), kind: NotificationKind::Delivered };
    assert_eq!(id.to_string(), format!("{}:delivered", order(1)));
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["", ":", "delivered", "x:delivered", &format!("{}:lost", order(1))] {
        assert!(text.parse::<NotificationId>().is_err(), "{text}");
    }
}

#[test]
fn the_answers_show_the_user_and_the_wallet() {
    let tables = given([registered(ada()), deposited(500), authorized(1, 200)]);
    let body = concat!(
        r#"{"id":"01937b6e-0000-7000-8000-000000000000","name":"Ada Lovelace","#,
        r#""email":"ada@example.com","balance":{"available":{"amount":300,"currency":"EUR"},"#,
        r#""held":{"amount":200,"currency":"EUR"}},"created_at":"1970-01-01T00:00:01.000000Z","#,
        r#""updated_at":"1970-01-01T00:00:03.000000Z"}"#,
    );
    let created = Answer {
        status: 201,
        location: format!("/v1/users/{}", ada()),
        version: Version(3),
        body: body.to_owned(),
    };
    assert_eq!(answer(register(), &tables), created);
    let changed = Answer { status: 200, location: String::new(), ..created };
    assert_eq!(answer(deposit(euros(1)), &tables), changed);
}

#[test]
fn a_deposit_is_about_the_version_of_its_user() {
    let version = |tables: &UserTables| UserService::version(&command(deposit(euros(1))), tables);
    assert_eq!(version(&given([])), None);
    assert_eq!(version(&given(ada_with(500))), Some(Version(2)));
}

fn answer(message: Message<UserService>, tables: &UserTables) -> Answer {
    UserService::answer(&command(message), tables, &context())
}

fn command(message: Message<UserService>) -> Command {
    match message {
        Message::Command(command) => command,
        other => panic!("{other:?} is no command"),
    }
}

fn available_and_held(tables: &UserTables) -> (i64, i64) {
    let user = tables.users.get(&ada()).unwrap();
    (user.available, user.held)
}

// Any deposits and news, in any order, any number of times.

const USERS: usize = 2;
const ORDERS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Deposit { user: usize, amount: i64 },
    Hear { order: usize, news: News },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Placed,
    Confirmed,
    Rejected,
    Cancelled,
    Failed,
    Dispatched,
    Delivered,
}

const ALL_NEWS: [News; 7] = [
    News::Placed,
    News::Confirmed,
    News::Rejected,
    News::Cancelled,
    News::Failed,
    News::Dispatched,
    News::Delivered,
];

/// One more than there are users: orders of the last customer are of nobody.
fn customer(order: usize) -> UserId {
    user(order % (USERS + 1))
}

fn step() -> impl Strategy<Value = Step> {
    let news = prop::sample::select(ALL_NEWS.to_vec());
    prop_oneof![
        1 => (0..USERS, 0..300_i64).prop_map(|(user, amount)| Step::Deposit { user, amount }),
        5 => (0..ORDERS, news).prop_map(|(order, news)| Step::Hear { order, news }),
    ]
}

/// What each order costs.
type Totals = [i64; ORDERS];

fn totals() -> impl Strategy<Value = Totals> {
    prop::array::uniform6(0..200_i64)
}

impl Step {
    fn message(self, totals: &Totals) -> Message<UserService> {
        match self {
            Self::Deposit { user: number, amount } => Message::Command(Command::Deposit(Deposit {
                user_id: user(number),
                amount: euros(amount),
            })),
            Self::Hear { order, news } => match news {
                News::Placed => placed_by(customer(order), order, euros(totals[order])),
                News::Confirmed => confirmed_to(customer(order), order),
                News::Rejected => rejected_to(customer(order), order),
                News::Cancelled => cancelled_to(customer(order), order, CancelReason::Customer),
                News::Failed => cancelled_to(customer(order), order, CancelReason::ShipmentFailed),
                News::Dispatched => dispatched(order),
                News::Delivered => delivered(order),
            },
        }
    }
}

/// A house in which things happen: its rows, the outbox that they are the fold of, and what it heard.
#[derive(Default)]
struct House {
    tables: UserTables,
    outbox: Vec<UserEvent>,
    heard: BTreeMap<usize, Vec<News>>,
}

impl House {
    fn with_users() -> Self {
        let mut house = Self::default();
        (0..USERS).for_each(|number| house.record(registered(user(number))));
        house
    }

    fn rich() -> Self {
        let mut house = Self::with_users();
        for number in 0..USERS {
            let amount = euros(10_000);
            house.record(WalletDeposited { user_id: user(number), amount }.into());
        }
        house
    }

    fn record(&mut self, event: UserEvent) {
        self.tables.evolve(&recorded(&event, self.outbox.len() + 1));
        self.outbox.push(event);
    }

    /// How many events follow.
    fn step(&mut self, step: Step, totals: &Totals) -> usize {
        let message = step.message(totals);
        let events = UserService::decide(&message, &self.tables, &context()).unwrap();
        self.asks_for_all_it_changes(&message, &events);
        if let Step::Hear { order, news } = step {
            self.heard.entry(order).or_default().push(news);
        }
        let count = events.len();
        for event in events {
            self.record(event);
        }
        count
    }

    /// The rows asked for, once the payments are loaded, are all that the events change.
    fn asks_for_all_it_changes(&self, message: &Message<UserService>, events: &[UserEvent]) {
        let mut asked = UserTables::default();
        for (event, second) in self.outbox.iter().zip(1..) {
            asked.payments.evolve(&recorded(event, second));
        }
        UserService::concerns(message, &mut asked);
        let before = format!("{asked:?}");
        for event in events {
            asked.want_changed(event);
        }
        assert_eq!(format!("{asked:?}"), before, "{message:?} does not ask for what it changes");
    }

    fn check(&self) {
        self.money_is_conserved();
        self.what_is_held_is_held_by_open_payments();
        self.nothing_is_held_after_an_end();
        self.each_thing_is_told_once_and_only_to_users();
        self.rows_are_the_fold_of_the_outbox();
    }

    fn money_is_conserved(&self) {
        for user in self.tables.users.present() {
            let (mut came_in, mut spent) = (0, 0);
            for event in &self.outbox {
                match event {
                    UserEvent::Deposited(e) if e.user_id == user.id => {
                        came_in += e.amount.amount.get();
                    }
                    UserEvent::Captured(e) if e.user_id == user.id => {
                        spent += e.amount.amount.get();
                    }
                    UserEvent::Refunded(e) if e.user_id == user.id => {
                        spent -= e.amount.amount.get();
                    }
                    _ => {}
                }
            }
            assert_eq!(user.available + user.held + spent, came_in, "{user:?}");
            assert!(user.available >= 0 && user.held >= 0 && spent >= 0, "{user:?}");
        }
    }

    fn what_is_held_is_held_by_open_payments(&self) {
        for user in self.tables.users.present() {
            let payments = self.tables.payments.present().into_iter();
            let open = payments
                .filter(|p| p.user_id == user.id && p.status == PaymentStatus::Authorized)
                .map(|payment| payment.amount.get());
            assert_eq!(user.held, open.sum::<i64>(), "{user:?}");
        }
    }

    fn nothing_is_held_after_an_end(&self) {
        for (&number, heard) in &self.heard {
            let heard_of = heard.iter().position(|news| *news == News::Placed);
            let ended = heard.iter().enumerate().any(|(place, news)| match news {
                News::Rejected | News::Cancelled | News::Failed => true,
                // Nothing leaves before its payment was authorized.
                News::Dispatched | News::Delivered => heard_of.is_some_and(|first| first < place),
                News::Placed | News::Confirmed => false,
            });
            let payment = self.tables.payments.get(&order(number));
            let holds = payment.is_some_and(|p| p.status == PaymentStatus::Authorized);
            assert!(!(ended && holds), "{heard:?} leaves {payment:?}");
        }
    }

    fn each_thing_is_told_once_and_only_to_users(&self) {
        let mut told = BTreeSet::new();
        for event in &self.outbox {
            if let UserEvent::Notified(UserNotified { user_id, order_id, kind, .. }) = event {
                assert!(told.insert((*order_id, *kind)), "{order_id} is told {kind} twice");
                assert!(self.tables.users.get(user_id).is_some(), "{user_id} is nobody");
            }
        }
        let rows = self.tables.notifications.present();
        assert!(rows.iter().map(|row| (row.order_id, row.kind)).eq(told));
    }

    /// The outbox as it is stored, folded anew, gives the rows as they are stored.
    fn rows_are_the_fold_of_the_outbox(&self) {
        let stored = self.outbox.iter().map(|event| {
            let data = event.encode().unwrap();
            UserEvent::decode(event.kind(), event.schema(), &data).unwrap()
        });
        let folded = given(stored);
        assert_eq!(folded.users.present(), self.tables.users.present());
        assert_eq!(folded.payments.present(), self.tables.payments.present());
        assert_eq!(folded.notifications.present(), self.tables.notifications.present());
        self.tables.users.present().into_iter().for_each(survives_storage);
        self.tables.payments.present().into_iter().for_each(survives_storage);
        self.tables.notifications.present().into_iter().for_each(survives_storage);
    }
}

fn survives_storage<R: Row + Debug + PartialEq>(row: &R) {
    assert_eq!(R::from_cells(row.cells()).unwrap(), *row);
}

/// How an order may go, told by all services.
fn stories() -> impl Strategy<Value = Vec<News>> {
    use News::{Cancelled, Confirmed, Delivered, Dispatched, Failed, Placed, Rejected};
    prop::sample::select(vec![
        vec![Placed, Rejected],
        vec![Placed, Cancelled],
        vec![Placed, Confirmed, Cancelled],
        vec![Placed, Confirmed, Dispatched, Failed],
        vec![Placed, Confirmed, Dispatched, Delivered],
    ])
}

/// A story of every order, some of it twice, in any order of delivery; what needs an authorized
/// payment to happen at all comes after `order.placed`.
fn deliveries() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(stories(), ORDERS)
        .prop_flat_map(|stories| {
            let twice = stories.into_iter().enumerate().flat_map(|(order, story)| {
                let doubled = [story.clone(), story].concat();
                doubled.into_iter().map(move |news| Step::Hear { order, news })
            });
            Just(twice.collect::<Vec<_>>()).prop_shuffle()
        })
        .prop_map(|mut steps| {
            let mut placed = BTreeSet::new();
            for step in &mut steps {
                if let Step::Hear { order, news } = step
                    && matches!(news, News::Dispatched | News::Delivered)
                    && !placed.contains(order)
                {
                    *news = News::Placed;
                }
                if let Step::Hear { order, news: News::Placed } = step {
                    placed.insert(*order);
                }
            }
            steps
        })
}

proptest! {
    #[test]
    fn the_books_balance_whatever_comes_in_any_order_and_however_often(
        totals in totals(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut house = House::with_users();
        for step in steps {
            house.step(step, &totals);
            house.check();
        }
    }

    #[test]
    fn news_heard_twice_in_a_row_count_once(
        totals in totals(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut house = House::rich();
        for step in steps {
            house.step(step, &totals);
            if matches!(step, Step::Hear { .. }) {
                prop_assert_eq!(house.step(step, &totals), 0);
            }
        }
    }

    #[test]
    fn an_order_that_ends_badly_costs_nothing_in_whatever_order_that_was_heard(
        totals in totals(),
        steps in deliveries(),
    ) {
        let mut house = House::rich();
        for step in steps {
            house.step(step, &totals);
            house.check();
        }
        for (&number, heard) in &house.heard {
            let bad = heard.iter().any(|news| {
                matches!(news, News::Rejected | News::Cancelled | News::Failed)
            });
            let status = house.tables.payments.get(&order(number)).map(|payment| payment.status);
            let kept = matches!(status, Some(PaymentStatus::Authorized | PaymentStatus::Captured));
            prop_assert!(!(bad && kept), "{:?} leaves {:?}", heard, status);
        }
    }

    #[test]
    fn an_order_that_is_delivered_is_paid_once(
        totals in totals(),
        news in Just(ALL_NEWS.to_vec()).prop_shuffle(),
    ) {
        let kept = |news: &News| {
            matches!(news, News::Placed | News::Confirmed | News::Dispatched | News::Delivered)
        };
        let mut house = House::rich();
        house.step(Step::Hear { order: 0, news: News::Placed }, &totals);
        for news in news.into_iter().filter(kept) {
            house.step(Step::Hear { order: 0, news }, &totals);
        }
        house.check();
        let user = house.tables.users.get(&ada()).unwrap();
        prop_assert_eq!((user.available, user.held), (10_000 - totals[0], 0));
    }
}
