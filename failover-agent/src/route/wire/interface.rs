//! What an interface's message says beyond its name and its state.

use rtnetlink::packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage, Prop,
};

/// The interface's other names.
pub(crate) fn altnames(message: &LinkMessage) -> Vec<String> {
    let mut names = Vec::new();
    for attribute in &message.attributes {
        if let LinkAttribute::PropList(properties) = attribute {
            names.extend(properties.iter().filter_map(|property| match property {
                Prop::AltIfName(name) => Some(name.clone()),
                _ => None,
            }));
        }
    }
    names
}

/// Index of the VRF that the interface belongs to.
pub(crate) fn vrf(message: &LinkMessage) -> Option<u32> {
    let in_vrf = message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf)),
        _ => false,
    });
    let mut attributes = message.attributes.iter();
    let controller = attributes.find_map(|attribute| match attribute {
        LinkAttribute::Controller(ifindex) => Some(*ifindex),
        _ => None,
    });
    controller.filter(|_| in_vrf)
}

/// What an interface on top of another one is made of, and the index of the one below: their frames leave through both. A tunnel's
/// packets are new ones, and the peer of a veth is another end.
pub(crate) fn below(message: &LinkMessage) -> Option<(String, u32)> {
    let (mut kind, mut below) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(
                        kind @ (InfoKind::Vlan
                        | InfoKind::MacVlan
                        | InfoKind::MacVtap
                        | InfoKind::IpVlan
                        | InfoKind::IpVtap),
                    ) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Link(ifindex) => below = Some(*ifindex),
            // Below is another namespace's interface.
            LinkAttribute::LinkNetNsId(_) => return None,
            _ => {}
        }
    }
    kind.zip(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_controller_that_is_a_vrf_is_one() {
        let controlled_as = |kind| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName("wan0".to_owned()),
                LinkAttribute::Controller(7),
                LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)]),
            ];
            vrf(&message)
        };
        assert_eq!(controlled_as(InfoPortKind::Vrf), Some(7));
        assert_eq!(controlled_as(InfoPortKind::Bridge), None);
        assert_eq!(vrf(&LinkMessage::default()), None);
    }
}
