//! What users are told about their orders: each thing once, in a sentence.

use std::fmt;
use std::str::FromStr;

use waybill_contract::logistics::ShipmentDispatched;
use waybill_contract::order::{CancelReason, OrderCancelled};
use waybill_contract::user::{NotificationKind, UserNotified};
use waybill_contract::{Event, LogisticsEvent, OrderEvent, OrderId, UserEvent, UserId};
use waybill_runtime::{EventId, Evolve, Recorded, Table, Timestamp, Version, row, text_columns};

/// Names what is told about one order: `{order_id}:{kind}`, so that it is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotificationId {
    /// About which order.
    pub order_id: OrderId,
    /// What it is about.
    pub kind: NotificationKind,
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.order_id, self.kind)
    }
}

impl FromStr for NotificationId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (order_id, kind) = text.split_once(':').ok_or("must hold a colon")?;
        Ok(Self {
            order_id: order_id.parse().map_err(|invalid| format!("{invalid}"))?,
            kind: kind.parse()?,
        })
    }
}

text_columns!(NotificationId);

row! {
    /// Something a user was told.
    pub struct Notification in notifications for UserEvent {
        /// Its identity.
        id: text NotificationId,
        /// The event that says so.
        event_id: text EventId,
        /// Who was told.
        user_id: text UserId,
        /// About which order.
        order_id: text OrderId,
        /// What it is about.
        kind: text NotificationKind,
        /// The words.
        text: text String,
        /// When.
        created_at: bigint Timestamp,
    }
    list newest by event_id where [user_id = "$3"];
}

/// What an event of another service gives to tell about its order, if anything.
pub(crate) fn kind_of(event: &Event) -> Option<NotificationKind> {
    match event {
        Event::Order(OrderEvent::Confirmed(_)) => Some(NotificationKind::Confirmed),
        Event::Order(OrderEvent::Rejected(_)) => Some(NotificationKind::Rejected),
        Event::Order(OrderEvent::Cancelled(_)) => Some(NotificationKind::Cancelled),
        Event::Logistics(LogisticsEvent::Dispatched(_)) => Some(NotificationKind::Dispatched),
        Event::Logistics(LogisticsEvent::Delivered(_)) => Some(NotificationKind::Delivered),
        _ => None,
    }
}

/// Tells a user what happened to an order, if there is something to tell that was not told before.
pub(crate) fn notify(
    user_id: UserId,
    order_id: OrderId,
    event: &Event,
    told: &Table<Notification>,
) -> Option<UserEvent> {
    let kind = kind_of(event)?;
    if told.get(&NotificationId { order_id, kind }).is_some() {
        return None;
    }
    let text = format!("Your order {order_id} {}", news(event)?);
    Some(UserNotified { user_id, order_id, kind, text }.into())
}

/// What happened to an order, as the rest of a sentence about it.
fn news(event: &Event) -> Option<String> {
    match event {
        Event::Order(OrderEvent::Confirmed(_)) => Some("is confirmed and being packed.".to_owned()),
        Event::Order(OrderEvent::Rejected(_)) => {
            Some("cannot be fulfilled. You pay nothing for it.".to_owned())
        }
        Event::Order(OrderEvent::Cancelled(cancelled)) => Some(why_cancelled(cancelled).to_owned()),
        Event::Logistics(LogisticsEvent::Dispatched(parcel)) => Some(on_its_way(parcel)),
        Event::Logistics(LogisticsEvent::Delivered(_)) => Some("has arrived.".to_owned()),
        _ => None,
    }
}

fn why_cancelled(cancelled: &OrderCancelled) -> &'static str {
    match cancelled.reason {
        CancelReason::Customer => "is cancelled, as you asked.",
        CancelReason::Expired => "is cancelled: it could not be confirmed in time.",
        CancelReason::ShipmentFailed => {
            "is cancelled: its parcel could not be delivered. You get your money back."
        }
    }
}

fn on_its_way(parcel: &ShipmentDispatched) -> String {
    format!("is on its way with {}, tracking number {}.", parcel.carrier, parcel.tracking_number)
}

impl Evolve for Notification {
    fn changed_by(event: &UserEvent) -> Vec<NotificationId> {
        match event {
            UserEvent::Notified(e) => vec![NotificationId { order_id: e.order_id, kind: e.kind }],
            _ => Vec::new(),
        }
    }

    fn evolve(
        row: Option<Self>,
        id: &NotificationId,
        recorded: &Recorded<'_, UserEvent>,
    ) -> Option<Self> {
        let UserEvent::Notified(UserNotified { user_id, order_id, kind, text }) = recorded.event
        else {
            return row;
        };
        Some(Self {
            id: *id,
            event_id: recorded.id,
            user_id: *user_id,
            order_id: *order_id,
            kind: *kind,
            text: text.clone(),
            created_at: recorded.time,
            version: Version(0),
        })
    }
}
