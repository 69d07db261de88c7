//! Users, their money, and what an order's payment comes to.
//!
//! ```text
//!           ┌──► declined
//! (placed) ─┤
//!           └──► authorized ──► captured ──► refunded
//!                    │        (it left)    (it failed)
//!                    └──► released
//!                  (it ended before it left)
//! ```
//!
//! Money is *available* until an order is placed, *held* while its payment is authorized, and spent
//! once its parcel left; what an order that ends badly holds or spent comes back. An order whose
//! end is heard before its beginning leaves an empty released payment, so that nothing is held for
//! it afterwards. What arrives late, twice or after the end changes nothing.

use waybill_contract::order::{OrderCancelled, OrderPlaced, OrderRejected};
use waybill_contract::user::{
    DeclineReason, PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentRefunded,
    PaymentReleased, UserRegistered, WalletDeposited,
};
use waybill_contract::values::LARGEST;
use waybill_contract::{
    Amount, Currency, Email, Event, LogisticsEvent, Money, OrderEvent, OrderId, Text, UserEvent,
    UserId,
};
use waybill_runtime::{
    Context, Evolve, Message, Recorded, TimerChange, Timestamp, Version, row, tables, text_enum,
};

use crate::UserService;
use crate::notification::{self, Notification, NotificationId};

text_enum! {
    /// What an order's payment came to.
    pub enum PaymentStatus {
        /// The total is held.
        Authorized = "authorized",
        /// The total could not be held.
        Declined = "declined",
        /// The total is spent.
        Captured = "captured",
        /// What was held is free again, or nothing was held and nothing will be.
        Released = "released",
        /// What was spent came back.
        Refunded = "refunded",
    }
}

row! {
    /// A user with a wallet of one currency.
    pub struct User in users for UserEvent {
        /// The user's identity.
        id: text UserId,
        /// The user's name.
        name: text Text,
        /// Where mail reaches the user.
        email: text Email,
        /// The wallet's currency.
        currency: text Currency,
        /// What can be spent, in minor units; refunds may take it beyond the largest [`Amount`].
        available: bigint i64,
        /// What is set aside for orders, in minor units.
        held: bigint i64,
        /// When the user was registered.
        created_at: bigint Timestamp,
        /// When the user or the wallet last changed.
        updated_at: bigint Timestamp,
    }
    list newest by id where [];
}

row! {
    /// The payment of an order.
    pub struct Payment in payments for UserEvent {
        /// Which order.
        order_id: text OrderId,
        /// Who pays.
        user_id: text UserId,
        /// What it came to.
        status: text PaymentStatus,
        /// How much was held, in minor units; 0 where nothing ever was.
        amount: bigint Amount,
        /// Of what currency; nothing where nothing was ever held.
        currency: text Option<Currency>,
        /// When it was first decided.
        created_at: bigint Timestamp,
        /// When it last changed.
        updated_at: bigint Timestamp,
    }
}

tables! {
    /// What the user service owns.
    pub struct UserTables for UserEvent {
        /// Every user.
        users: User,
        /// Every payment.
        payments: Payment,
        /// Everything users were told.
        notifications: Notification,
    }
}

/// What the user service can be asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Register a user.
    Register(RegisterUser),
    /// Put money into a wallet.
    Deposit(Deposit),
}

/// Register a user with an empty wallet.
#[derive(Clone, Debug)]
pub struct RegisterUser {
    /// The user's name.
    pub name: Text,
    /// Where mail reaches the user.
    pub email: Email,
    /// The wallet's currency.
    pub currency: Currency,
}

/// Put this money into a user's wallet.
#[derive(Clone, Debug)]
pub struct Deposit {
    /// Whose wallet.
    pub user_id: UserId,
    /// How much.
    pub amount: Money,
}

/// What the user service asks to be reminded of: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Timer {}

/// Why the user service says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such user.
    #[error("there is no user {0}")]
    UnknownUser(UserId),
    /// The wallet does not take this currency.
    #[error("the wallet holds {wallet}, not {given}")]
    OtherCurrency {
        /// What the wallet holds.
        wallet: Currency,
        /// What was given.
        given: Currency,
    },
    /// The wallet would hold more than the largest [`Amount`].
    #[error("with this deposit, the balance comes to more than {LARGEST} minor units")]
    BalanceTooLarge,
}

type Decision = Result<Vec<UserEvent>, Refusal>;

/// Which rows a message concerns.
pub(crate) fn concerns(message: &Message<UserService>, tables: &mut UserTables) {
    match message {
        Message::Command(Command::Register(_)) => {}
        Message::Command(Command::Deposit(deposit)) => tables.users.want(&deposit.user_id),
        Message::Due(timer) => match *timer {},
        Message::Heard(event) => {
            let Some((order_id, customer_id)) = order_of(event) else { return };
            tables.payments.want(&order_id);
            if let Some(kind) = notification::kind_of(event) {
                tables.notifications.want(&NotificationId { order_id, kind });
            }
            // Shipments do not name the customer; the payment does, once it is loaded.
            let payer_id = tables.payments.get(&order_id).map(|payment| payment.user_id);
            customer_id.iter().chain(&payer_id).for_each(|user_id| tables.users.want(user_id));
        }
    }
}

/// The order that an event of another service is about, and its customer where the event says who.
fn order_of(event: &Event) -> Option<(OrderId, Option<UserId>)> {
    match event {
        Event::Order(OrderEvent::Placed(e)) => Some((e.order_id, Some(e.customer_id))),
        Event::Order(OrderEvent::Confirmed(e)) => Some((e.order_id, Some(e.customer_id))),
        Event::Order(OrderEvent::Rejected(e)) => Some((e.order_id, Some(e.customer_id))),
        Event::Order(OrderEvent::Cancelled(e)) => Some((e.order_id, Some(e.customer_id))),
        Event::Logistics(LogisticsEvent::Dispatched(e)) => Some((e.order_id, None)),
        Event::Logistics(LogisticsEvent::Delivered(e)) => Some((e.order_id, None)),
        _ => None,
    }
}

/// What follows from a message.
pub(crate) fn decide(
    message: &Message<UserService>,
    tables: &UserTables,
    context: &Context<'_, UserService>,
) -> Decision {
    match message {
        Message::Command(Command::Register(register)) => {
            Ok(vec![registered(register, UserId(context.fresh_id))])
        }
        Message::Command(Command::Deposit(deposit)) => decide_deposit(deposit, tables),
        Message::Due(timer) => match *timer {},
        Message::Heard(event) => Ok(hear(event, tables)),
    }
}

fn registered(register: &RegisterUser, user_id: UserId) -> UserEvent {
    UserRegistered {
        user_id,
        name: register.name.clone(),
        email: register.email.clone(),
        currency: register.currency.clone(),
    }
    .into()
}

fn decide_deposit(deposit: &Deposit, tables: &UserTables) -> Decision {
    let Deposit { user_id, amount } = deposit;
    let user = tables.users.get(user_id).ok_or(Refusal::UnknownUser(*user_id))?;
    if amount.currency != user.currency {
        let (wallet, given) = (user.currency.clone(), amount.currency.clone());
        return Err(Refusal::OtherCurrency { wallet, given });
    }
    if user.available + user.held + amount.amount.get() > LARGEST {
        return Err(Refusal::BalanceTooLarge);
    }
    Ok(vec![WalletDeposited { user_id: *user_id, amount: amount.clone() }.into()])
}

/// What follows from what another service says: for the money, then for what the user is told.
fn hear(event: &Event, tables: &UserTables) -> Vec<UserEvent> {
    let Some((order_id, _)) = order_of(event) else { return Vec::new() };
    let payment = tables.payments.get(&order_id);
    let told = whom_to_tell(event, payment)
        .filter(|user_id| tables.users.get(user_id).is_some())
        .and_then(|user_id| notification::notify(user_id, order_id, event, &tables.notifications));
    settle(event, payment, tables).into_iter().chain(told).collect()
}

/// What becomes of the order's payment.
fn settle(event: &Event, payment: Option<&Payment>, tables: &UserTables) -> Option<UserEvent> {
    match (event, payment) {
        (Event::Order(OrderEvent::Placed(placed)), None) => Some(authorize(placed, tables)),
        (
            Event::Order(
                OrderEvent::Rejected(OrderRejected { order_id, customer_id, .. })
                | OrderEvent::Cancelled(OrderCancelled { order_id, customer_id, .. }),
            ),
            None,
        ) => {
            let (order_id, user_id) = (*order_id, *customer_id);
            Some(PaymentReleased { order_id, user_id, amount: None }.into())
        }
        (Event::Order(OrderEvent::Rejected(_) | OrderEvent::Cancelled(_)), Some(payment)) => {
            payment.give_back()
        }
        // A parcel that arrived has left, even if the news of its leaving is still on the way.
        (
            Event::Logistics(LogisticsEvent::Dispatched(_) | LogisticsEvent::Delivered(_)),
            Some(payment),
        ) => payment.capture(),
        _ => None,
    }
}

/// Who is to be told of the event; nobody of progress that later news has overtaken.
fn whom_to_tell(event: &Event, payment: Option<&Payment>) -> Option<UserId> {
    let status = payment.map(|payment| payment.status);
    let payer_id = payment.map(|payment| payment.user_id);
    match (event, status) {
        (Event::Order(OrderEvent::Rejected(e)), _) => Some(e.customer_id),
        (Event::Order(OrderEvent::Cancelled(e)), _) => Some(e.customer_id),
        (Event::Order(OrderEvent::Confirmed(e)), None | Some(PaymentStatus::Authorized)) => {
            Some(e.customer_id)
        }
        (Event::Logistics(LogisticsEvent::Dispatched(_)), Some(PaymentStatus::Authorized))
        | (
            Event::Logistics(LogisticsEvent::Delivered(_)),
            Some(PaymentStatus::Authorized | PaymentStatus::Captured),
        ) => payer_id,
        _ => None,
    }
}

/// Holds the total if the customer's wallet allows it.
fn authorize(placed: &OrderPlaced, tables: &UserTables) -> UserEvent {
    let (order_id, user_id) = (placed.order_id, placed.customer_id);
    let obstacle = match tables.users.get(&user_id) {
        None => Some(DeclineReason::UnknownCustomer),
        Some(user) if user.currency != placed.total.currency => {
            Some(DeclineReason::CurrencyMismatch)
        }
        Some(user) if user.available < placed.total.amount.get() => {
            Some(DeclineReason::InsufficientFunds)
        }
        Some(_) => None,
    };
    match obstacle {
        Some(reason) => PaymentDeclined { order_id, user_id, reason }.into(),
        None => PaymentAuthorized { order_id, user_id, amount: placed.total.clone() }.into(),
    }
}

impl Payment {
    /// The money that is, or once was, held; nothing if there never was any.
    pub fn money(&self) -> Option<Money> {
        let currency = self.currency.clone()?;
        Some(Money { amount: self.amount, currency })
    }

    /// What is held is spent.
    fn capture(&self) -> Option<UserEvent> {
        let (order_id, user_id, amount) = (self.order_id, self.user_id, self.money()?);
        match self.status {
            PaymentStatus::Authorized => Some(PaymentCaptured { order_id, user_id, amount }.into()),
            _ => None,
        }
    }

    /// What is held or spent comes back.
    fn give_back(&self) -> Option<UserEvent> {
        let (order_id, user_id, amount) = (self.order_id, self.user_id, self.money()?);
        match self.status {
            PaymentStatus::Authorized => {
                Some(PaymentReleased { order_id, user_id, amount: Some(amount) }.into())
            }
            PaymentStatus::Captured => Some(PaymentRefunded { order_id, user_id, amount }.into()),
            _ => None,
        }
    }
}

/// The timers that an event sets or clears: none.
pub(crate) fn timers(_: &UserEvent) -> Vec<TimerChange<Timer>> {
    Vec::new()
}

impl Evolve for User {
    fn changed_by(event: &UserEvent) -> Vec<UserId> {
        match event {
            UserEvent::Registered(e) => vec![e.user_id],
            UserEvent::Deposited(e) => vec![e.user_id],
            UserEvent::Authorized(e) => vec![e.user_id],
            UserEvent::Captured(e) => vec![e.user_id],
            UserEvent::Released(PaymentReleased { user_id, amount: Some(_), .. }) => vec![*user_id],
            UserEvent::Refunded(e) => vec![e.user_id],
            UserEvent::Released(_) | UserEvent::Declined(_) | UserEvent::Notified(_) => Vec::new(),
        }
    }

    fn evolve(row: Option<Self>, _: &UserId, recorded: &Recorded<'_, UserEvent>) -> Option<Self> {
        if let UserEvent::Registered(registered) = recorded.event {
            return Some(Self::registered(registered, recorded.time));
        }
        let mut user = row?;
        user.updated_at = recorded.time;
        match recorded.event {
            UserEvent::Deposited(e) => user.available += e.amount.amount.get(),
            UserEvent::Authorized(e) => {
                user.available -= e.amount.amount.get();
                user.held += e.amount.amount.get();
            }
            UserEvent::Captured(e) => user.held -= e.amount.amount.get(),
            UserEvent::Released(PaymentReleased { amount: Some(amount), .. }) => {
                user.held -= amount.amount.get();
                user.available += amount.amount.get();
            }
            UserEvent::Refunded(e) => user.available += e.amount.amount.get(),
            UserEvent::Registered(_)
            | UserEvent::Released(_)
            | UserEvent::Declined(_)
            | UserEvent::Notified(_) => {}
        }
        Some(user)
    }
}

impl User {
    fn registered(event: &UserRegistered, time: Timestamp) -> Self {
        Self {
            id: event.user_id,
            name: event.name.clone(),
            email: event.email.clone(),
            currency: event.currency.clone(),
            available: 0,
            held: 0,
            created_at: time,
            updated_at: time,
            version: Version(0),
        }
    }
}

impl Evolve for Payment {
    fn changed_by(event: &UserEvent) -> Vec<OrderId> {
        match event {
            UserEvent::Authorized(e) => vec![e.order_id],
            UserEvent::Declined(e) => vec![e.order_id],
            UserEvent::Captured(e) => vec![e.order_id],
            UserEvent::Released(e) => vec![e.order_id],
            UserEvent::Refunded(e) => vec![e.order_id],
            UserEvent::Registered(_) | UserEvent::Deposited(_) | UserEvent::Notified(_) => {
                Vec::new()
            }
        }
    }

    fn evolve(row: Option<Self>, _: &OrderId, recorded: &Recorded<'_, UserEvent>) -> Option<Self> {
        let begun = |order_id, user_id, status, money| {
            Some(Self::begun(order_id, user_id, status, money, recorded.time))
        };
        let status = match recorded.event {
            UserEvent::Authorized(PaymentAuthorized { order_id, user_id, amount }) => {
                return begun(*order_id, *user_id, PaymentStatus::Authorized, Some(amount));
            }
            UserEvent::Declined(PaymentDeclined { order_id, user_id, .. }) => {
                return begun(*order_id, *user_id, PaymentStatus::Declined, None);
            }
            UserEvent::Released(PaymentReleased { order_id, user_id, amount: None }) => {
                return begun(*order_id, *user_id, PaymentStatus::Released, None);
            }
            UserEvent::Captured(_) => PaymentStatus::Captured,
            UserEvent::Released(_) => PaymentStatus::Released,
            UserEvent::Refunded(_) => PaymentStatus::Refunded,
            UserEvent::Registered(_) | UserEvent::Deposited(_) | UserEvent::Notified(_) => {
                return row;
            }
        };
        Some(Self { status, updated_at: recorded.time, ..row? })
    }
}

impl Payment {
    fn begun(
        order_id: OrderId,
        user_id: UserId,
        status: PaymentStatus,
        money: Option<&Money>,
        time: Timestamp,
    ) -> Self {
        Self {
            order_id,
            user_id,
            status,
            amount: money.map_or(Amount::ZERO, |money| money.amount),
            currency: money.map(|money| money.currency.clone()),
            created_at: time,
            updated_at: time,
            version: Version(0),
        }
    }
}
