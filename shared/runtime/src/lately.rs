//! What was put somewhere last, within a limit.

use std::collections::HashMap;
use std::hash::Hash;

/// Values by key, of which those put longest ago go when there are too many.
#[derive(Debug)]
pub(crate) struct Lately<K, V> {
    young: HashMap<K, V>,
    /// What was young when there were too many; the next time it goes.
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash, V> Lately<K, V> {
    /// Keeps at most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.most / 2 {
            // What those that go leave allocated is used again.
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    pub(crate) fn take(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn has(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_those_put_last_are_kept() {
        let mut lately = Lately::new(4);
        for number in 0..100 {
            lately.put(number, ());
            assert!(lately.has(&number));
            assert!(lately.young.len() + lately.old.len() <= 4);
        }
        assert!(lately.has(&98) && !lately.has(&95));
        assert_eq!((lately.take(&99), lately.take(&99)), (Some(()), None));
    }
}
