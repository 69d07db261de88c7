//! Events of the user service.

use serde::{Deserialize, Serialize};
use waybill_runtime::text_enum;

use crate::values::{Currency, Email, Money, OrderId, Text, UserId};

/// The service's name in an event's source.
pub const SOURCE: &str = "user";

events! {
    /// What happens to users, their money and what they are told.
    pub enum UserEvent {
        /// A user is new.
        Registered(UserRegistered) = "user.registered" / 1,
            stream |e| user(e.user_id), order |_| None;
        /// Money came into a user's wallet.
        Deposited(WalletDeposited) = "wallet.deposited" / 1,
            stream |e| user(e.user_id), order |_| None;
        /// An order's total is held for it.
        Authorized(PaymentAuthorized) = "payment.authorized" / 1,
            stream |e| payment(e.order_id), order |e| Some(e.order_id);
        /// An order's total cannot be held.
        Declined(PaymentDeclined) = "payment.declined" / 1,
            stream |e| payment(e.order_id), order |e| Some(e.order_id);
        /// What was held is spent.
        Captured(PaymentCaptured) = "payment.captured" / 1,
            stream |e| payment(e.order_id), order |e| Some(e.order_id);
        /// What was held is free again; no amount where nothing was held yet.
        Released(PaymentReleased) = "payment.released" / 1,
            stream |e| payment(e.order_id), order |e| Some(e.order_id);
        /// What was spent came back.
        Refunded(PaymentRefunded) = "payment.refunded" / 1,
            stream |e| payment(e.order_id), order |e| Some(e.order_id);
        /// A user was told about an order.
        Notified(UserNotified) = "user.notified" / 1,
            stream |e| user(e.user_id), order |e| Some(e.order_id);
    }
}

fn user(user_id: UserId) -> String {
    format!("user-{user_id}")
}

fn payment(order_id: OrderId) -> String {
    format!("payment-{order_id}")
}

/// Data of `user.registered`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRegistered {
    /// The user.
    pub user_id: UserId,
    /// The user's name.
    pub name: Text,
    /// Where mail reaches the user.
    pub email: Email,
    /// The currency of the user's wallet.
    pub currency: Currency,
}

/// Data of `wallet.deposited`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletDeposited {
    /// The user.
    pub user_id: UserId,
    /// How much came in.
    pub amount: Money,
}

/// Data of `payment.authorized`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAuthorized {
    /// The order.
    pub order_id: OrderId,
    /// Whose money it is.
    pub user_id: UserId,
    /// How much is held.
    pub amount: Money,
}

text_enum! {
    /// Why an order's total cannot be held.
    pub enum DeclineReason {
        /// There is no such user.
        UnknownCustomer = "unknown_customer",
        /// The wallet holds less.
        InsufficientFunds = "insufficient_funds",
        /// The wallet holds another currency.
        CurrencyMismatch = "currency_mismatch",
    }
}

/// Data of `payment.declined`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentDeclined {
    /// The order.
    pub order_id: OrderId,
    /// Who was to pay.
    pub user_id: UserId,
    /// Why not.
    pub reason: DeclineReason,
}

/// Data of `payment.captured`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentCaptured {
    /// The order.
    pub order_id: OrderId,
    /// Whose money it was.
    pub user_id: UserId,
    /// How much is spent.
    pub amount: Money,
}

/// Data of `payment.released`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentReleased {
    /// The order.
    pub order_id: OrderId,
    /// Whose money it is.
    pub user_id: UserId,
    /// How much is free again; nothing where nothing was held yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Money>,
}

/// Data of `payment.refunded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// Whose money it is again.
    pub user_id: UserId,
    /// How much came back.
    pub amount: Money,
}

text_enum! {
    /// What a user is told about an order.
    pub enum NotificationKind {
        /// It will be shipped.
        Confirmed = "confirmed",
        /// It cannot be fulfilled.
        Rejected = "rejected",
        /// It is on its way.
        Dispatched = "dispatched",
        /// It arrived.
        Delivered = "delivered",
        /// It is cancelled.
        Cancelled = "cancelled",
    }
}

/// Data of `user.notified`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNotified {
    /// Who was told.
    pub user_id: UserId,
    /// About which order.
    pub order_id: OrderId,
    /// What it is about.
    pub kind: NotificationKind,
    /// The words.
    pub text: String,
}
