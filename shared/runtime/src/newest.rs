//! The newest of a log, kept in memory for those of this process who come next: what it wrote a moment
//! ago need not be read again.

use std::collections::VecDeque;

use crate::event::Position;
use crate::limits;

/// A stretch without gaps that ends where its log does, as far as this process knows. It is bounded: the
/// oldest go first, and are read from the database by whoever is that far behind.
#[derive(Debug)]
pub(crate) struct Newest<T> {
    /// The place of the first.
    first: Position,
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { first: Position(1), items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Newest<T> {
    /// Adds what is at a place, of about so many bytes. What does not follow the last begins anew.
    pub(crate) fn push(&mut self, position: Position, item: T, bytes: usize) {
        if position != self.first.plus(self.items.len()) {
            self.items.clear();
            (self.first, self.bytes) = (position, 0);
        }
        self.items.push_back((item, bytes));
        self.bytes += bytes;
        while self.items.len() > limits::NEWEST_EVENTS || self.bytes > limits::NEWEST_BYTES {
            self.pop();
        }
    }

    /// What is at a place.
    pub(crate) fn get(&self, position: Position) -> Option<&T> {
        let index = usize::try_from(position.0.checked_sub(self.first.0)?).ok()?;
        self.items.get(index).map(|(item, _)| item)
    }

    /// Everything after a place that is here.
    pub(crate) fn after(&self, position: Position) -> impl Iterator<Item = &T> {
        let skipped = position.next().0.saturating_sub(self.first.0);
        self.items.iter().skip(usize::try_from(skipped).unwrap_or(0)).map(|(item, _)| item)
    }

    /// Takes what follows a place, at most so many, and forgets what comes before. Nothing if what comes
    /// next is not here.
    pub(crate) fn take_after(&mut self, position: Position, most: usize) -> Vec<T> {
        let mut taken = Vec::new();
        while self.first <= position && self.pop().is_some() {}
        while self.first == position.plus(taken.len()).next()
            && taken.len() < most
            && let Some(item) = self.pop()
        {
            taken.push(item);
        }
        taken
    }

    fn pop(&mut self) -> Option<T> {
        let (item, bytes) = self.items.pop_front()?;
        self.first = self.first.next();
        self.bytes -= bytes;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(positions: std::ops::RangeInclusive<i64>) -> Newest<i64> {
        let mut newest = Newest::default();
        positions.for_each(|place| newest.push(Position(place), place, 10));
        newest
    }

    #[test]
    fn what_does_not_follow_begins_anew() {
        let mut newest = filled(1..=3);
        newest.push(Position(7), 7, 10);
        assert_eq!(newest.get(Position(3)), None);
        assert_eq!(newest.get(Position(7)), Some(&7));
        assert_eq!(newest.after(Position(0)).collect::<Vec<_>>(), [&7]);
    }

    #[test]
    fn what_follows_a_place_is_taken_once_and_only_if_it_is_all_there() {
        let mut newest = filled(4..=9);
        assert!(newest.take_after(Position(2), 10).is_empty(), "3 is not here");
        assert_eq!(newest.take_after(Position(4), 2), [5, 6]);
        assert_eq!(newest.take_after(Position(6), 10), [7, 8, 9]);
        assert!(newest.take_after(Position(9), 10).is_empty());
        newest.push(Position(10), 10, 10);
        assert_eq!(newest.take_after(Position(9), 10), [10]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
        let most = i64::try_from(limits::NEWEST_EVENTS).expect("it fits");
        let newest = filled(1..=most + 5);
        assert_eq!((newest.get(Position(5)), newest.get(Position(6))), (None, Some(&6)));
        let mut newest = filled(1..=3);
        newest.push(Position(4), 4, limits::NEWEST_BYTES);
        assert_eq!((newest.get(Position(3)), newest.get(Position(4))), (None, Some(&4)));
        assert_eq!(newest.after(Position(1)).collect::<Vec<_>>(), [&4]);
    }
}
