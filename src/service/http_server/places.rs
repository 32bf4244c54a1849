//! Who holds how many connections. It refuses, and nobody waits: a queue for places would be one more thing
//! to fill.
//!
//! Invariant: no address and no sum of addresses holds more places than its bound, and a place that is dropped
//! is free again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Bounds, Cut, HttpCounters};

/// The places of one server.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_address: usize,
    held: Mutex<Held>,
    counters: Arc<HttpCounters>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// A place that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(bounds: &Bounds, counters: Arc<HttpCounters>) -> Arc<Self> {
        let (most, most_per_address) = (bounds.connections, bounds.connections_per_address);
        Arc::new(Self { most, most_per_address, held: Mutex::default(), counters })
    }

    /// A place for this address, or why there is none.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Cut> {
        let address = host_of(address);
        let mut held = self.held();
        if held.all >= self.most {
            return Err(Cut::Full);
        }
        let of_address = held.by_address.entry(address).or_default();
        if *of_address >= self.most_per_address {
            return Err(Cut::AddressFull);
        }
        *of_address += 1;
        held.all += 1;
        self.counters.opened();
        Ok(Place { places: Arc::clone(self), address })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it holds the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.all -= 1;
        if let Some(of_address) = held.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                held.by_address.remove(&self.address);
            }
        }
        self.places.counters.closed();
    }
}

/// What one host has: an IPv4 address, however it is written, or the 64 bits that networks give to a host.
fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Bounds, Cut, HttpCounters, Places};

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_come_back() {
        let counters = Arc::new(HttpCounters::default());
        let bounds = Bounds { connections: 3, connections_per_address: 2, ..Bounds::default() };
        let places = Places::new(&bounds, Arc::clone(&counters));
        let take = |address: &str| places.take(address.parse().expect("an address"));
        let first = take("10.0.0.1").expect("it is free");
        let _second = take("::ffff:10.0.0.1").expect("the same host's second");
        assert_eq!(take("10.0.0.1").map(drop), Err(Cut::AddressFull));
        let third = take("2001:db8::1").expect("another host");
        assert_eq!(take("10.0.0.2").map(drop), Err(Cut::Full));
        assert_eq!(counters.open_connections(), 3);
        drop((first, third));
        let _fourth = take("2001:db8::1").expect("it is free again");
        let _fifth = take("2001:db8::2").expect("the same network's second");
        assert_eq!(counters.open_connections(), 3);
        drop(_second);
        assert_eq!(take("2001:db8::3").map(drop), Err(Cut::AddressFull), "the same network's third");
    }
}
