//! The user service: who the users are, what their wallets hold, and what they are told.
//!
//! **Hears** how an order begins, goes on and ends (`order.placed`, `order.confirmed`,
//! `order.rejected`, `order.cancelled`), and that its parcel left and arrived
//! (`shipment.dispatched`, `shipment.delivered`).
//!
//! **Tells** of users `user.registered`, `wallet.deposited` and `user.notified`; of each order
//! `payment.authorized` or `payment.declined`, then `payment.captured`, `payment.released` or
//! `payment.refunded`.
//!
//! **Serves** `POST /v1/users`, `GET /v1/users`, `GET /v1/users/{id}`,
//! `POST /v1/users/{id}/deposits` and `GET /v1/users/{id}/notifications`.

mod api;
mod notification;
mod wallet;

pub use api::{BalanceView, NotificationView, SumView, UserView, routes};
pub use notification::{Notification, NotificationId};
pub use wallet::{
    Command, Deposit, Payment, PaymentStatus, Refusal, RegisterUser, Timer, User, UserTables,
};

use waybill_contract::{Event, UserEvent};
use waybill_runtime::{
    Answer, Context, DecodeError, Envelope, Message, Migration, Service, TimerChange, Version,
};

/// The user service.
#[derive(Debug)]
pub struct UserService;

impl Service for UserService {
    const NAME: &'static str = waybill_contract::user::SOURCE;
    const HEARS: &'static [&'static str] = &[
        "order.placed",
        "order.confirmed",
        "order.rejected",
        "order.cancelled",
        "shipment.dispatched",
        "shipment.delivered",
    ];
    const MIGRATIONS: &'static [Migration] = &[Migration {
        version: 2001,
        name: "users",
        sql: include_str!("../../../migrations/user/0001_users.sql"),
    }];
    const POSTGRES_MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 3001,
            name: "views",
            sql: include_str!("../../../migrations/postgres/0104_user_views.sql"),
        },
        Migration {
            version: 3002,
            name: "room",
            sql: include_str!("../../../migrations/postgres/0107_user_room.sql"),
        },
    ];

    type Tables = UserTables;
    type Event = UserEvent;
    type Heard = Event;
    type Command = Command;
    type Timer = Timer;
    type Refusal = Refusal;
    type Settings = ();

    fn hear(envelope: &Envelope) -> Result<Event, DecodeError> {
        Event::read(envelope)
    }

    fn concerns(message: &Message<Self>, tables: &mut UserTables) {
        wallet::concerns(message, tables);
    }

    fn decide(
        message: &Message<Self>,
        tables: &UserTables,
        context: &Context<'_, Self>,
    ) -> Result<Vec<UserEvent>, Refusal> {
        wallet::decide(message, tables, context)
    }

    fn timers(event: &UserEvent) -> Vec<TimerChange<Timer>> {
        wallet::timers(event)
    }

    fn version(command: &Command, tables: &UserTables) -> Option<Version> {
        match command {
            Command::Register(_) => None,
            Command::Deposit(deposit) => tables.users.get(&deposit.user_id).map(|u| u.version),
        }
    }

    fn answer(command: &Command, tables: &UserTables, context: &Context<'_, Self>) -> Answer {
        api::answer(command, tables, context)
    }
}
