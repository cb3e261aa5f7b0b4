//! A provider's router advertisements: radvd.

use std::{fmt::Write, net::Ipv6Addr};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Daemon, System};
use crate::uplink::Uplink;

/// How much hosts are to prefer a router (RFC 4191, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Less than others.
    Low,
    /// As much.
    Medium,
    /// More.
    High,
}

/// What a router advertises (RFC 4861, section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The router's link-local address, from which it advertises and which is the gateway.
    pub router: Ipv6Addr,
    /// Seconds for which it is a default router; 0: it is none.
    pub lifetime: u16,
    /// Among several.
    pub preference: Preference,
    /// /64 prefixes for the hosts' addresses, and whether these are preferred; otherwise they are deprecated.
    pub prefixes: Vec<(Ipv6Addr, bool)>,
}

impl Advertisement {
    /// Of a router with medium preference, a lifetime of half an hour, and this preferred prefix.
    pub fn of(router: Ipv6Addr, prefix: Ipv6Addr) -> Advertisement {
        Advertisement {
            router,
            lifetime: 1800,
            preference: Preference::Medium,
            prefixes: vec![(prefix, true)],
        }
    }

    /// In the words of radvd.conf(5). The interval option is what permits intervals below 3 s (RFC 6275, section 7.5).
    fn settings(&self) -> Result<String> {
        let preference = match self.preference {
            Preference::Low => "low",
            Preference::Medium => "medium",
            Preference::High => "high",
        };
        let mut settings = format!(
            "interface customer {{\n\
             AdvSendAdvert on;\n\
             AdvIntervalOpt on;\n\
             MinRtrAdvInterval 0.1;\n\
             MaxRtrAdvInterval 0.2;\n\
             AdvRASrcAddress {{ {}; }};\n\
             AdvDefaultLifetime {};\n\
             AdvDefaultPreference {preference};\n",
            self.router, self.lifetime
        );
        for (prefix, preferred) in &self.prefixes {
            let lifetime = if *preferred { 1800 } else { 0 };
            writeln!(
                settings,
                "prefix {prefix}/64 {{ AdvValidLifetime 3600; AdvPreferredLifetime {lifetime}; }};"
            )?;
        }
        settings.push_str("};\n");
        Ok(settings)
    }
}

/// A router at a provider's end of an uplink that advertises itself; silenced when dropped. Several may share a link.
#[derive(Debug)]
pub struct Router {
    system: System,
    uplink: Uplink,
    radvd: Daemon,
}

impl Router {
    /// Gives the provider the addresses that it needs to be that router, and starts to advertise.
    ///
    /// # Errors
    /// When radvd does not start.
    pub fn start(uplink: &Uplink, advertisement: &Advertisement) -> Result<Router> {
        let system = System::new(uplink.provider())?;
        set_up(&system, uplink, advertisement)?;
        let radvd = system.start(
            "radvd",
            &[
                "--nodaemon",
                "--logmethod=stderr",
                "--config=/etc/radvd.conf",
                "--pidfile=/run/radvd.pid",
            ],
        )?;
        Ok(Router {
            system,
            uplink: uplink.clone(),
            radvd,
        })
    }

    /// Advertises something else from now on, at once.
    ///
    /// # Errors
    /// When radvd has ended.
    pub fn advertise(&self, advertisement: &Advertisement) -> Result<()> {
        set_up(&self.system, &self.uplink, advertisement)?;
        self.radvd.signal(Signal::SIGHUP)
    }

    /// Stops in good order: the last advertisement says that it is no default router any more (lifetime 0).
    ///
    /// # Errors
    /// When radvd does not end.
    pub fn stop(mut self) -> Result<()> {
        self.radvd.stop().map(drop)
    }
}

fn set_up(system: &System, uplink: &Uplink, advertisement: &Advertisement) -> Result<()> {
    let mut batch = format!(
        "address replace {}/64 dev customer nodad\n",
        advertisement.router
    );
    for (prefix, _) in &advertisement.prefixes {
        let mut router = prefix.segments();
        router[7] = 1;
        let router = Ipv6Addr::from(router);
        writeln!(batch, "address replace {router}/64 dev customer nodad")?;
    }
    uplink.provider().ip_batch(&batch)?;
    system.write("/etc/radvd.conf", &advertisement.settings()?)
}
