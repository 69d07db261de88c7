//! Any stored text is an event or is refused, and an event says the same when it is stored again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use waybill_contract::{InventoryEvent, LogisticsEvent, OrderEvent, UserEvent};
use waybill_runtime::Event;

fn read_as<E: Event + Debug + PartialEq>(kinds: &[(&str, i64)], data: &str) {
    for &(kind, schema) in kinds {
        let Ok(event) = E::decode(kind, schema, data) else { continue };
        let stored = event.encode().expect("an event can be stored");
        let again = E::decode(kind, schema, &stored).expect("what was stored can be read");
        assert_eq!((again.kind(), again.schema()), (kind, schema));
        assert_eq!(again.stream(), event.stream());
        assert_eq!(again, event);
    }
}

fuzz_target!(|data: &str| {
    read_as::<OrderEvent>(OrderEvent::KINDS, data);
    read_as::<InventoryEvent>(InventoryEvent::KINDS, data);
    read_as::<LogisticsEvent>(LogisticsEvent::KINDS, data);
    read_as::<UserEvent>(UserEvent::KINDS, data);
});
