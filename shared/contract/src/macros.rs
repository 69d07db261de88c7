//! Writes the enum of a service's events from their names and versions.

/// Declares a service's events: variant, data, published name, version of its form, stream, order.
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $Enum:ident {
            $( $(#[$variant_meta:meta])* $Variant:ident($Data:ty) = $kind:literal / $schema:literal,
               stream $stream:expr, order $order:expr; )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $Enum { $( $(#[$variant_meta])* $Variant($Data), )+ }

        impl $Enum {
            /// Every name with the version of its form.
            pub const KINDS: &'static [(&'static str, i64)] = &[$(($kind, $schema)),+];
        }

        impl ::waybill_runtime::Event for $Enum {
            fn kind(&self) -> &'static str {
                match self { $( Self::$Variant(_) => $kind, )+ }
            }
            fn schema(&self) -> i64 {
                match self { $( Self::$Variant(_) => $schema, )+ }
            }
            fn stream(&self) -> String {
                match self { $( Self::$Variant(data) => { let stream: fn(&$Data) -> String = $stream; stream(data) } )+ }
            }
            fn order(&self) -> Option<::uuid::Uuid> {
                match self { $( Self::$Variant(data) => {
                    let order: fn(&$Data) -> Option<$crate::OrderId> = $order;
                    order(data).map(|id| id.0)
                } )+ }
            }
            fn encode(&self) -> Result<String, ::serde_json::Error> {
                match self { $( Self::$Variant(data) => ::serde_json::to_string(data), )+ }
            }
            fn decode(kind: &str, schema: i64, data: &str) -> Result<Self, ::waybill_runtime::DecodeError> {
                let malformed = |cause| ::waybill_runtime::DecodeError::Malformed { kind: kind.to_owned(), cause };
                match (kind, schema) {
                    $( ($kind, $schema) => ::serde_json::from_str(data).map(Self::$Variant).map_err(malformed), )+
                    _ => Err(::waybill_runtime::DecodeError::Unknown { kind: kind.to_owned(), schema }),
                }
            }
        }

        $(
            impl From<$Data> for $Enum {
                fn from(data: $Data) -> Self {
                    Self::$Variant(data)
                }
            }
        )+
    };
}
