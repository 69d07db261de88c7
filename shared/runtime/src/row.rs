//! A row of a service's table: its columns, declared once, and how events change it.

use std::fmt;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::event::{Event, Recorded, Version};

/// A row of one table, which is the fold of its service's outbox.
///
/// Declared with [`row!`](crate::row), which writes everything but [`Evolve`].
pub trait Row: Sized + Clone + Send + Sync + 'static {
    /// The events that change it.
    type Event: Event;
    /// What finds it; always stored as text.
    type Key: Column + Clone + Ord + Hash + fmt::Display + Send + Sync + 'static;

    /// The table's name.
    const TABLE: &'static str;
    /// Its columns in the order of [`Row::cells`], the key first, the version last.
    const COLUMNS: &'static [(&'static str, Kind)];
    /// Finds rows by a JSON array of keys.
    const LOAD: &'static str;
    /// Inserts or replaces rows from a table `rows` with the cells in the order of `COLUMNS`.
    const SAVE: &'static str;
    /// Reads rows after a key, in the order of keys.
    const SCAN: &'static str;
    /// Empties the table.
    const CLEAR: &'static str;
    /// How its rows are counted for the metrics, if they are.
    const COUNTED: Option<Counted> = None;

    /// What finds this row.
    fn key(&self) -> &Self::Key;
    /// How many events changed it.
    fn version(&self) -> Version;
    /// Sets how many events changed it; the runtime counts.
    fn set_version(&mut self, version: Version);
    /// Its values, in the order of [`Row::COLUMNS`].
    fn cells(&self) -> Vec<Cell>;
    /// The row with these values.
    fn from_cells(cells: Vec<Cell>) -> Result<Self, BadCell>;
}

/// A column of few values, by which a table's rows are counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// The column, with which an index begins.
    pub column: &'static str,
    /// Every value that it may have.
    pub values: &'static [&'static str],
    /// The statement: each value found, and how many rows have it.
    pub sql: &'static str,
}

/// The ways in which a table's rows can be listed.
pub trait Listed: Row {
    /// Each with its own statement and, where it filters, an index.
    const LISTS: &'static [List];
}

/// Which rows an event changes, and into what: the pure half of a table.
pub trait Evolve: Row {
    /// The keys of the rows of this kind that the event changes.
    fn changed_by(event: &Self::Event) -> Vec<Self::Key>;
    /// The next row. Nothing stays nothing where an event finds no row to change.
    fn evolve(
        row: Option<Self>,
        key: &Self::Key,
        recorded: &Recorded<'_, Self::Event>,
    ) -> Option<Self>;
}

/// The two kinds of column that mean the same in both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `text not null`
    Text,
    /// `bigint not null`
    Bigint,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A whole number.
    Bigint(i64),
}

impl Cell {
    /// The kind of column that it fits.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Bigint(_) => Kind::Bigint,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Bigint(number) => number.fmt(f),
        }
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Bigint(number)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A stored value that its column's type refuses.
#[derive(Debug, thiserror::Error)]
#[error("{table}.{column} holds {cell}, which is not {expected}")]
pub struct BadCell {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// What it holds.
    pub cell: Cell,
    /// What it should hold.
    pub expected: &'static str,
}

/// A type that one column holds.
pub trait Column: Sized {
    /// The value to store.
    fn to_cell(&self) -> Cell;
    /// Reads a stored value; gives it back if it is not one of this type.
    fn from_cell(cell: Cell) -> Result<Self, Cell>;
}

impl Column for String {
    fn to_cell(&self) -> Cell {
        Cell::Text(self.clone())
    }
    fn from_cell(cell: Cell) -> Result<Self, Cell> {
        match cell {
            Cell::Text(text) => Ok(text),
            Cell::Bigint(_) => Err(cell),
        }
    }
}

impl Column for i64 {
    fn to_cell(&self) -> Cell {
        Cell::Bigint(*self)
    }
    fn from_cell(cell: Cell) -> Result<Self, Cell> {
        match cell {
            Cell::Bigint(number) => Ok(number),
            Cell::Text(_) => Err(cell),
        }
    }
}

impl Column for Timestamp {
    fn to_cell(&self) -> Cell {
        Cell::Bigint(self.0)
    }
    fn from_cell(cell: Cell) -> Result<Self, Cell> {
        i64::from_cell(cell).map(Self)
    }
}

/// Columns are never null: nothing is the empty text, so only for types without an empty form.
impl<T: Column> Column for Option<T> {
    fn to_cell(&self) -> Cell {
        self.as_ref().map_or_else(|| Cell::Text(String::new()), Column::to_cell)
    }
    fn from_cell(cell: Cell) -> Result<Self, Cell> {
        match &cell {
            Cell::Text(text) if text.is_empty() => Ok(None),
            _ => T::from_cell(cell).map(Some),
        }
    }
}

/// A structured value in one text column, such as an order's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Column for Json<T> {
    fn to_cell(&self) -> Cell {
        // Our own plain structures always have a JSON form; an empty text would be refused on reading.
        Cell::Text(serde_json::to_string(&self.0).unwrap_or_default())
    }
    fn from_cell(cell: Cell) -> Result<Self, Cell> {
        match &cell {
            Cell::Text(text) => serde_json::from_str(text).map(Self).map_err(|_| cell),
            Cell::Bigint(_) => Err(cell),
        }
    }
}

/// Makes types columns by their `Display` and `FromStr`.
#[macro_export]
macro_rules! text_columns {
    ($($Type:ty),+ $(,)?) => {$(
        impl $crate::Column for $Type {
            fn to_cell(&self) -> $crate::Cell {
                $crate::Cell::Text(self.to_string())
            }
            fn from_cell(cell: $crate::Cell) -> Result<Self, $crate::Cell> {
                match &cell {
                    $crate::Cell::Text(text) => text.parse().map_err(|_| cell),
                    $crate::Cell::Bigint(_) => Err(cell),
                }
            }
        }
    )+};
}

/// An enum whose variants have a text each, the same in JSON, in columns and for people.
#[macro_export]
macro_rules! text_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Enum:ident { $( $(#[$variant_meta:meta])* $Variant:ident = $text:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $Enum { $( $(#[$variant_meta])* $Variant, )+ }

        impl $Enum {
            /// Every value, in the order declared.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];
            /// The text of every value, in the same order.
            pub const TEXTS: &'static [&'static str] = &[$($text),+];

            /// The text that stands for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$Variant => $text, )+ }
            }
        }

        impl ::std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $Enum {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $( $text => Ok(Self::$Variant), )+
                    _ => Err(format!("must be one of {}", [$($text),+].join(", "))),
                }
            }
        }

        impl ::serde::Serialize for $Enum {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $Enum {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }

        $crate::text_columns!($Enum);
    };
}

/// One way to list a table's rows: by these columns, in the order of one unique column.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The columns that must equal the given values, in this order.
    pub filters: &'static [&'static str],
    /// The column that orders the list and that a cursor holds.
    pub sort: &'static str,
    /// Which end comes first.
    pub direction: Direction,
    /// The statement: `$1` the cursor, `$2` the limit, `$3` and on the filters.
    pub sql: &'static str,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The largest first; only for columns that hold `UUIDv7`, which grow with time.
    Newest,
    /// The smallest first.
    Ascending,
}

impl Direction {
    /// What stands before every row of a list in this order.
    #[must_use]
    pub fn before_first(self) -> &'static str {
        match self {
            Self::Newest => "ffffffff-ffff-ffff-ffff-ffffffffffff",
            Self::Ascending => "",
        }
    }
}

/// Declares a row: a struct, its table, its columns with their kinds, its lists, and the column by
/// which its rows are counted, if they are (a [`text_enum`](crate::text_enum) that an index begins
/// with).
///
/// The first field is the key. A `version` column comes last in the table, without being declared.
/// A list `over` a column and all its values is found by an index that has this column between the filters
/// and the order: a page of each value, merged.
/// All SQL of the table is put together here, at compile time.
#[macro_export]
macro_rules! row {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Row:ident in $table:ident for $Event:ident $fields:tt
        $(
            list $direction:ident by $sort:ident where [ $( $filter:ident = $place:literal ),* ]
            $( over $split:ident [ $( $value:literal ),+ ] )?;
        )*
        $( counted by $counted:ident: $Counted:ty; )?
    ) => {
        $crate::row!(@row [$(#[$meta])*] [$vis] $Row $table $Event [$($counted $Counted)?] $fields);

        impl $crate::Listed for $Row {
            const LISTS: &'static [$crate::List] = &[$( $crate::List {
                filters: &[$( stringify!($filter) ),*],
                sort: stringify!($sort),
                direction: $crate::row!(@direction $direction),
                sql: $crate::row!(
                    @list [$table $fields $direction $sort $($filter $place)*] $( $split $($value)+ )?
                ),
            } ),*];
        }
    };
    (@row [$($meta:tt)*] [$vis:vis] $Row:ident $table:ident $Event:ident
        [$($counted:ident $Counted:ty)?] {
        $(#[$key_meta:meta])* $key:ident: $key_kind:ident $Key:ty,
        $( $(#[$field_meta:meta])* $field:ident: $kind:ident $Type:ty, )*
    }) => {
        $($meta)*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $Row {
            $(#[$key_meta])* pub $key: $Key,
            $( $(#[$field_meta])* pub $field: $Type, )*
            /// How many events changed this row.
            pub version: $crate::Version,
        }

        impl $crate::Row for $Row {
            type Event = $Event;
            type Key = $Key;

            const TABLE: &'static str = stringify!($table);
            const COLUMNS: &'static [(&'static str, $crate::Kind)] = &[
                (stringify!($key), $crate::row!(@kind $key_kind)),
                $( (stringify!($field), $crate::row!(@kind $kind)), )*
                ("version", $crate::Kind::Bigint),
            ];
            const LOAD: &'static str = concat!(
                "select ", stringify!($key), ", ", $( stringify!($field), ", ", )* "version",
                " from ", stringify!($table),
                " where ", stringify!($key), " in (select atom from jsonb_each($1))",
            );
            const SAVE: &'static str = concat!(
                "insert into ", stringify!($table),
                " (", stringify!($key), ", ", $( stringify!($field), ", ", )* "version)",
                " select * from rows where true",
                " on conflict (", stringify!($key), ") do update set ",
                $( stringify!($field), " = excluded.", stringify!($field), ", ", )*
                "version = excluded.version",
            );
            const SCAN: &'static str = concat!(
                "select ", stringify!($key), ", ", $( stringify!($field), ", ", )* "version",
                " from ", stringify!($table),
                " where ", stringify!($key), " > $1 order by ", stringify!($key), " limit $2",
            );
            const CLEAR: &'static str = concat!("delete from ", stringify!($table));
            $( const COUNTED: Option<$crate::Counted> = Some($crate::Counted {
                column: stringify!($counted),
                values: <$Counted>::TEXTS,
                sql: concat!(
                    "select ", stringify!($counted), ", count(*) from ", stringify!($table),
                    " group by ", stringify!($counted),
                ),
            }); )?

            fn key(&self) -> &Self::Key {
                &self.$key
            }
            fn version(&self) -> $crate::Version {
                self.version
            }
            fn set_version(&mut self, version: $crate::Version) {
                self.version = version;
            }
            fn cells(&self) -> Vec<$crate::Cell> {
                vec![
                    $crate::Column::to_cell(&self.$key),
                    $( $crate::Column::to_cell(&self.$field), )*
                    $crate::Cell::Bigint(self.version.0),
                ]
            }
            fn from_cells(cells: Vec<$crate::Cell>) -> Result<Self, $crate::BadCell> {
                let mut cells = cells.into_iter();
                Ok(Self {
                    $key: $crate::cell(&mut cells, Self::TABLE, stringify!($key), stringify!($Key))?,
                    $( $field: $crate::cell(&mut cells, Self::TABLE, stringify!($field), stringify!($Type))?, )*
                    version: $crate::Version($crate::cell(&mut cells, Self::TABLE, "version", "a count")?),
                })
            }
        }
    };
    (@list $page:tt) => { $crate::row!(@page $page) };
    (@list $page:tt $split:ident $first:literal $($value:literal)*) => {
        concat!(
            "select * from (", $crate::row!(@page $page $split $first), ") as found",
            $(
                " union all select * from (", $crate::row!(@page $page $split $value), ") as found",
            )*
            $crate::row!(@end $page),
        )
    };
    (@page [$table:ident $fields:tt $direction:ident $sort:ident $($filter:ident $place:literal)*]
        $( $split:ident $value:literal )?) => {
        concat!(
            $crate::row!(@select $table $fields),
            " where ", $( stringify!($filter), " = ", $place, " and ", )*
            $( stringify!($split), " = '", $value, "' and ", )?
            stringify!($sort), $crate::row!(@after $direction), "$1",
            $crate::row!(@end [$table $fields $direction $sort]),
        )
    };
    (@end [$table:ident $fields:tt $direction:ident $sort:ident $($filters:tt)*]) => {
        concat!(" order by ", stringify!($sort), $crate::row!(@order $direction), " limit $2")
    };
    (@select $table:ident {
        $(#[$key_meta:meta])* $key:ident: $key_kind:ident $Key:ty,
        $( $(#[$field_meta:meta])* $field:ident: $kind:ident $Type:ty, )*
    }) => {
        concat!("select ", stringify!($key), ", ", $( stringify!($field), ", ", )* "version from ", stringify!($table))
    };
    (@kind text) => { $crate::Kind::Text };
    (@kind bigint) => { $crate::Kind::Bigint };
    (@direction newest) => { $crate::Direction::Newest };
    (@direction ascending) => { $crate::Direction::Ascending };
    (@after newest) => { " < " };
    (@after ascending) => { " > " };
    (@order newest) => { " desc" };
    (@order ascending) => { "" };
}

/// Takes the next value of a row; for the code that [`row!`](crate::row) writes.
pub fn cell<T: Column>(
    cells: &mut impl Iterator<Item = Cell>,
    table: &'static str,
    column: &'static str,
    expected: &'static str,
) -> Result<T, BadCell> {
    let bad = |cell| BadCell { table, column, cell, expected };
    let cell = cells.next().ok_or_else(|| bad(Cell::Text(String::new())))?;
    T::from_cell(cell).map_err(bad)
}
