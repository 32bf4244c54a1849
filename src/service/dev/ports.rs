//! Whether the addresses of a development cluster are free, and who has those that are not.
//!
//! It holds none of them: another process may still be faster. Invariant: all addresses are looked at before any
//! process is started.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
};

/// How far apart the ports are that are offered instead.
const OFFERED_APART: u16 = 100;

/// An address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenPort {
    /// Which.
    pub address: SocketAddr,
    /// The flag that moves it.
    pub flag: &'static str,
    /// Why, as it follows "is", with the process that has it where that can be seen.
    pub why: String,
}

/// All addresses that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsTaken {
    /// At least one.
    pub taken: Vec<TakenPort>,
    /// Flags with which all would be free.
    pub instead: Option<String>,
}

impl fmt::Display for PortsTaken {
    /// Neighbours with one reason, mostly the two ports of a replica, are told together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let together = |one: &TakenPort, next: &TakenPort| one.why == next.why;
        for (place, group) in self.taken.chunk_by(together).enumerate() {
            let ports: Vec<_> = group.iter().map(|taken| taken.address.to_string()).collect();
            let separator = if place == 0 { "" } else { ", " };
            let verb = if ports.len() == 1 { "is" } else { "are" };
            write!(f, "{separator}{} {verb} {}", ports.join(" and "), group[0].why)?;
        }
        let mut flags: Vec<_> = self.taken.iter().map(|taken| taken.flag).collect();
        flags.dedup();
        write!(f, "; end what uses it, or choose another {}", flags.join(" and "))?;
        match &self.instead {
            Some(instead) => write!(f, "; free now: {instead}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PortsTaken {}

/// Looks at every address: the replicas' from `base_port` on, and the relay's.
pub(super) fn check_free(
    addresses: impl Iterator<Item = (SocketAddr, &'static str)>,
    base_port: u16,
    otlp_port: u16,
) -> Result<(), PortsTaken> {
    let mut count = 0u16;
    let mut taken = Vec::new();
    for (address, flag) in addresses {
        count = count.saturating_add(u16::from(flag == "--base-port"));
        if let Err(error) = TcpListener::bind(address) {
            taken.push(TakenPort { address, flag, why: why(address, &error) });
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    let host = taken[0].address.ip();
    let replicas = taken.iter().any(|taken| taken.flag == "--base-port");
    let relay = taken.iter().any(|taken| taken.flag == "--otlp-port");
    let base = if replicas { free_from(host, base_port, count) } else { Some(base_port) };
    let base = base.filter(|base| relay || !(*base..base.saturating_add(count)).contains(&otlp_port));
    let otlp = base.and_then(|base| {
        let clear = |port: &u16| !(base..base.saturating_add(count)).contains(port);
        (otlp_port..=u16::MAX).skip(1).filter(clear).find(|port| is_free(host, *port))
    });
    let mut instead = Vec::new();
    instead.extend(base.filter(|_| replicas).map(|base| format!("--base-port {base}")));
    instead.extend(otlp.filter(|_| relay).map(|port| format!("--otlp-port {port}")));
    Err(PortsTaken { taken, instead: Some(instead.join(" ")).filter(|instead| !instead.is_empty()) })
}

fn is_free(host: IpAddr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

/// The next first port, in steps, from which so many in a row are free.
fn free_from(host: IpAddr, base_port: u16, count: u16) -> Option<u16> {
    let mut base = base_port;
    loop {
        base = base.checked_add(OFFERED_APART)?;
        let last = base.checked_add(count)?;
        if (base..last).all(|port| is_free(host, port)) {
            return Some(base);
        }
    }
}

fn why(address: SocketAddr, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return format!("not usable ({error})");
    }
    match holder(Path::new("/proc"), address.port()) {
        Some((pid, name)) => format!("taken by {name} (process {pid})"),
        None => "taken".to_owned(),
    }
}

/// The process that listens on a port: number and name. `None` when the system does not show it, as it does not
/// show other users' processes.
fn holder(proc: &Path, port: u16) -> Option<(u32, String)> {
    let inode = ["net/tcp", "net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(proc.join(table)).ok()?;
        text.lines().find_map(|line| listening_inode(line, port)).map(str::to_owned)
    })?;
    let link = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(proc.join(pid.to_string()).join("fd"));
        let mut links = descriptors.into_iter().flatten().flatten().map(|entry| fs::read_link(entry.path()));
        links.any(|target| target.is_ok_and(|target| target.as_os_str() == link.as_str()))
    };
    let entries = fs::read_dir(proc).ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(holds)?;
    let name = fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

/// The inode of a line of `/proc/net/tcp` whose socket listens on this port.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    /// `TCP_LISTEN` in the kernel's table.
    const LISTENS: &str = "0A";
    let mut fields = line.split_whitespace();
    let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
    let listens = fields.nth(1)? == LISTENS && u16::from_str_radix(local_port, 16) == Ok(port);
    // After the state: queues, timer, retransmissions, user, timeout.
    fields.nth(5).filter(|_| listens)
}

#[cfg(test)]
mod tests {
    use super::check_free;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    #[test]
    fn every_taken_port_is_named_with_who_has_it_and_what_is_free_instead() {
        // Two neighbours: the second one's number is not chosen by the system, so a few may be tried.
        let (one, two, base) = (0..50)
            .find_map(|_| {
                let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let base = one.local_addr().ok()?.port();
                let two = TcpListener::bind((Ipv4Addr::LOCALHOST, base.checked_add(1)?)).ok()?;
                (base < 60_000).then_some((one, two, base))
            })
            .expect("two free ports in a row");
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addresses = || {
            [
                (address(base), "--base-port"),
                (address(base + 1), "--base-port"),
                (address(base + 2), "--otlp-port"),
            ]
            .into_iter()
        };
        let taken = check_free(addresses(), base, base + 2).expect_err("two are taken");
        let told = taken.to_string();
        let me = std::process::id();
        let line = format!("127.0.0.1:{base} and 127.0.0.1:{} are taken by ", base + 1);
        assert!(told.starts_with(&line) && told.contains(&format!("(process {me})")), "{told}");
        assert!(told.contains("end what uses it, or choose another --base-port"), "{told}");
        assert!(told.contains("free now: --base-port "), "{told}");
        drop((one, two));
        assert_eq!(check_free(addresses(), base, base + 2), Ok(()));
    }
}
