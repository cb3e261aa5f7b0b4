//! Routing rules.

use std::{fmt, net::IpAddr};

use anyhow::Result;
use failover_policy::Family;
use rtnetlink::packet_route::{
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage},
};

use super::{list::address_family, message::MAIN_TABLE};
use crate::{config::RouteConfig, netlink::Netlink, route::numbers};

/// What a rule says, as far as ours say anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    pub(crate) source: Option<IpAddr>,
    pub(crate) mark: Option<u32>,
    pub(crate) interface: Option<String>,
    pub(crate) table: u32,
    pub(crate) suppress_prefix_length: Option<u32>,
}

/// Every rule of ours.
pub(crate) fn rules_of(
    netlink: &mut Netlink,
    family: Family,
    config: &RouteConfig,
) -> Result<Vec<Rule>> {
    let ours = RuleAttribute::Protocol(RouteProtocol::from(config.protocol));
    let priorities = numbers::rule_priorities(config);
    Ok(netlink
        .rules(family)?
        .iter()
        .filter(|message| message.attributes.contains(&ours))
        .map(Rule::read)
        .filter(|rule| priorities.contains(&rule.priority))
        .collect())
}

impl Rule {
    pub(crate) fn read(message: &RuleMessage) -> Rule {
        let mut rule = Rule {
            priority: 0,
            source: None,
            mark: None,
            interface: None,
            table: u32::from(message.header.table),
            suppress_prefix_length: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Source(source) => rule.source = Some(*source),
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::Oifname(name) => rule.interface = Some(name.clone()),
                RuleAttribute::Table(table) => rule.table = *table,
                // The kernel reports "none" as -1.
                RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => {
                    rule.suppress_prefix_length = Some(*length);
                }
                _ => {}
            }
        }
        rule
    }

    /// The message that adds or deletes it.
    pub(crate) fn message(&self, family: Family, protocol: u8) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header = RuleHeader {
            family: address_family(family),
            src_len: match self.source {
                None => 0,
                Some(IpAddr::V4(_)) => 32,
                Some(IpAddr::V6(_)) => 128,
            },
            action: RuleAction::ToTable,
            ..RuleHeader::default()
        };
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Table(self.table),
            RuleAttribute::Protocol(RouteProtocol::from(protocol)),
        ];
        message
            .attributes
            .extend(self.source.map(RuleAttribute::Source));
        message
            .attributes
            .extend(self.interface.clone().map(RuleAttribute::Oifname));
        if let Some(mark) = self.mark {
            message.attributes.push(RuleAttribute::FwMark(mark));
            message.attributes.push(RuleAttribute::FwMask(u32::MAX));
        }
        message.attributes.extend(
            self.suppress_prefix_length
                .map(RuleAttribute::SuppressPrefixLen),
        );
        message
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}:", self.priority)?;
        match self.source {
            Some(source) => write!(f, " from {source}")?,
            None => write!(f, " from all")?,
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        if let Some(interface) = &self.interface {
            write!(f, " oif {interface}")?;
        }
        if self.table == MAIN_TABLE {
            write!(f, " lookup main")?;
        } else {
            write!(f, " lookup {}", self.table)?;
        }
        if let Some(length) = self.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        Ok(())
    }
}
