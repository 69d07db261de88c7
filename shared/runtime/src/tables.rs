//! The rows that a unit of work has in its hands.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;

use crate::event::{Event, Recorded, Version};
use crate::lately::Lately;
use crate::limits;
use crate::row::{Evolve, Row};

/// Rows of one table: those asked for, as loaded and as changed since.
#[derive(Debug)]
pub struct Table<R: Row> {
    rows: HashMap<R::Key, Option<R>>,
    /// Rows of former units, which may be asked for again.
    kept: Lately<R::Key, R>,
    /// Whether a row came from there since somebody last asked.
    recalled: bool,
    wanted: BTreeSet<R::Key>,
    changed: BTreeSet<R::Key>,
    undo: Vec<Undo<R>>,
}

#[derive(Debug)]
struct Undo<R: Row> {
    key: R::Key,
    row: Option<R>,
    was_changed: bool,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            kept: Lately::new(limits::ROWS_KEPT),
            recalled: false,
            wanted: BTreeSet::new(),
            changed: BTreeSet::new(),
            undo: Vec::new(),
        }
    }
}

impl<R: Row> Table<R> {
    /// Asks for a row: it will be here, or known to be absent, before anything is decided.
    pub fn want(&mut self, key: &R::Key) {
        if self.rows.contains_key(key) {
            return;
        }
        match self.kept.take(key) {
            Some(row) => {
                self.rows.insert(key.clone(), Some(row));
                self.recalled = true;
            }
            None => {
                self.wanted.insert(key.clone());
            }
        }
    }

    /// The row, if it is there. Only rows asked for with [`Table::want`] are ever found.
    pub fn get(&self, key: &R::Key) -> Option<&R> {
        self.rows.get(key)?.as_ref()
    }

    /// All rows in hand, in the order of their keys.
    pub fn present(&self) -> Vec<&R> {
        let mut rows: Vec<&R> = self.rows.values().flatten().collect();
        rows.sort_by(|a, b| a.key().cmp(b.key()));
        rows
    }

    /// Whether a row was asked for that is not loaded yet.
    pub fn is_wanting(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether a row that was asked for since the last call was still in memory: it may lead to further
    /// ones, as one that was loaded.
    pub fn take_recalled(&mut self) -> bool {
        std::mem::take(&mut self.recalled)
    }

    /// The keys still to be loaded.
    pub(crate) fn wanted(&self) -> &BTreeSet<R::Key> {
        &self.wanted
    }

    /// Knows without a load that there is no row of this key, given as text.
    pub(crate) fn is_absent(&mut self, key: &str) {
        let found = self.wanted.iter().find(|wanted| wanted.to_string() == key).cloned();
        if let Some(key) = found {
            self.wanted.remove(&key);
            self.rows.insert(key, None);
        }
    }

    /// Takes what a load found; what it did not find is known to be absent.
    pub(crate) fn loaded(&mut self, found: Vec<R>) {
        for key in std::mem::take(&mut self.wanted) {
            self.rows.insert(key, None);
        }
        for row in found {
            self.rows.insert(row.key().clone(), Some(row));
        }
    }

    /// The rows that events changed.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &R> {
        self.changed.iter().filter_map(|key| self.rows.get(key)?.as_ref())
    }
}

impl<R: Evolve> Table<R> {
    /// Asks for the rows that the event changes.
    pub fn want_changed(&mut self, event: &R::Event) {
        for key in R::changed_by(event) {
            self.want(&key);
        }
    }

    /// Changes the rows that the event changes, and counts the change.
    pub fn evolve(&mut self, recorded: &Recorded<'_, R::Event>) {
        for key in R::changed_by(recorded.event) {
            let before = self.rows.get_mut(&key).and_then(Option::take);
            let version = before.as_ref().map_or(0, |row| row.version().0);
            let was_changed = self.changed.contains(&key);
            self.undo.push(Undo { key: key.clone(), row: before.clone(), was_changed });
            if let Some(mut row) = R::evolve(before, &key, recorded) {
                row.set_version(Version(version + 1));
                self.changed.insert(key.clone());
                self.rows.insert(key, Some(row));
            } else {
                let unchanged = self.undo.last().and_then(|undo| undo.row.clone());
                self.rows.insert(key, unchanged);
            }
        }
    }

    /// Keeps the changes made since the last call.
    pub fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes back the changes made since the last [`Table::keep`].
    pub fn take_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            if !undo.was_changed {
                self.changed.remove(&undo.key);
            }
            self.rows.insert(undo.key, undo.row);
        }
    }

    /// Ends a unit whose changes are committed: its rows are kept for the next ones.
    pub fn settle(&mut self) {
        self.undo.clear();
        self.changed.clear();
        self.wanted.clear();
        for (key, row) in self.rows.drain() {
            if let Some(row) = row {
                self.kept.put(key, row);
            }
        }
    }
}

/// All tables of a service. Declared with [`tables!`](crate::tables).
pub trait Tables: Default + Send + Sync + 'static {
    /// The events that change them.
    type Event: Event;

    /// Asks for every row that the event changes.
    fn want_changed(&mut self, event: &Self::Event);
    /// Changes every row that the event changes.
    fn evolve(&mut self, recorded: &Recorded<'_, Self::Event>);
    /// Keeps the changes made since the last call.
    fn keep(&mut self);
    /// Takes back the changes made since the last [`Tables::keep`].
    fn take_back(&mut self);
    /// Ends a unit whose changes are committed: its rows are kept for the next ones.
    fn settle(&mut self);
    /// Whether a row was asked for that is not loaded yet.
    fn any_wanted(&self) -> bool;
    /// Whether a row that was asked for since the last call was still in memory.
    fn take_recalled(&mut self) -> bool;
    /// Shows each table to the visitor, in the order declared.
    fn visit<V: Visitor>(
        &mut self,
        visitor: &mut V,
    ) -> impl Future<Output = Result<(), V::Error>> + Send;
}

/// Does the same with every table of a service, whatever its rows.
pub trait Visitor: Send {
    /// Why it may stop.
    type Error: Send;
    /// Does it with one table.
    fn table<R: Evolve>(
        &mut self,
        table: &mut Table<R>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Declares the tables of a service.
#[macro_export]
macro_rules! tables {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Tables:ident for $Event:ident {
            $( $(#[$field_meta:meta])* $field:ident: $Row:ty, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $Tables {
            $( $(#[$field_meta])* pub $field: $crate::Table<$Row>, )+
        }

        impl $crate::Tables for $Tables {
            type Event = $Event;

            fn want_changed(&mut self, event: &$Event) {
                $( self.$field.want_changed(event); )+
            }
            fn evolve(&mut self, recorded: &$crate::Recorded<'_, $Event>) {
                $( self.$field.evolve(recorded); )+
            }
            fn keep(&mut self) {
                $( self.$field.keep(); )+
            }
            fn take_back(&mut self) {
                $( self.$field.take_back(); )+
            }
            fn settle(&mut self) {
                $( self.$field.settle(); )+
            }
            fn any_wanted(&self) -> bool {
                $( self.$field.is_wanting() )||+
            }
            fn take_recalled(&mut self) -> bool {
                $( self.$field.take_recalled() )|+
            }
            async fn visit<V: $crate::Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
                $( visitor.table(&mut self.$field).await?; )+
                Ok(())
            }
        }
    };
}
