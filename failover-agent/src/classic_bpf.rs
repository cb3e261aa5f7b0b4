//! Codes of classic BPF instructions (`linux/filter.h`), as the filters on our sockets have them. A and X are the machine's two
//! registers.

use nix::libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX,
    BPF_MISC, BPF_MSH, BPF_RET, BPF_TAX, BPF_W, SKF_AD_NLATTR, SKF_AD_OFF,
};

/// Loads of A from the packet.
pub(crate) const LOAD_32: u16 = code(BPF_LD | BPF_W | BPF_ABS);
pub(crate) const LOAD_16: u16 = code(BPF_LD | BPF_H | BPF_ABS);
pub(crate) const LOAD_8: u16 = code(BPF_LD | BPF_B | BPF_ABS);
/// The same, counted from X on.
pub(crate) const LOAD_32_BEHIND_X: u16 = code(BPF_LD | BPF_W | BPF_IND);
pub(crate) const LOAD_16_BEHIND_X: u16 = code(BPF_LD | BPF_H | BPF_IND);
pub(crate) const LOAD_8_BEHIND_X: u16 = code(BPF_LD | BPF_B | BPF_IND);
/// The operand itself to A, and to X.
pub(crate) const LOAD_NUMBER: u16 = code(BPF_LD | BPF_IMM);
pub(crate) const LOAD_X: u16 = code(BPF_LDX | BPF_IMM);
/// The length of the IPv4 header at an offset.
pub(crate) const LOAD_IPV4_HEADER_LENGTH_TO_X: u16 = code(BPF_LDX | BPF_B | BPF_MSH);
/// A to X.
pub(crate) const COPY_TO_X: u16 = code(BPF_MISC | BPF_TAX);
pub(crate) const JUMP: u16 = code(BPF_JMP | BPF_JA);
/// If A is the operand.
pub(crate) const JUMP_IF_EQUAL: u16 = code(BPF_JMP | BPF_JEQ | BPF_K);
/// How much of the packet passes: 0 drops it.
pub(crate) const RETURN: u16 = code(BPF_RET | BPF_K);

/// Where [`LOAD_8`] finds the netlink attribute of type X among those from offset A on: A becomes its offset, or 0.
pub(crate) const FIND_ATTRIBUTE: u32 = (SKF_AD_OFF + SKF_AD_NLATTR).cast_unsigned();

#[expect(
    clippy::cast_possible_truncation,
    reason = "`struct sock_filter` has 16 bits for a code, and every code fits into 8"
)]
const fn code(bits: u32) -> u16 {
    bits as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_the_kernel_reads() {
        // As `tcpdump -dd` and `bpf_dbg` print them.
        assert_eq!([LOAD_32, LOAD_16, LOAD_8], [0x20, 0x28, 0x30]);
        assert_eq!(
            [LOAD_32_BEHIND_X, LOAD_16_BEHIND_X, LOAD_8_BEHIND_X],
            [0x40, 0x48, 0x50]
        );
        assert_eq!([LOAD_NUMBER, LOAD_X, COPY_TO_X], [0x00, 0x01, 0x07]);
        assert_eq!([JUMP, JUMP_IF_EQUAL, RETURN], [0x05, 0x15, 0x06]);
        assert_eq!(LOAD_IPV4_HEADER_LENGTH_TO_X, 0xb1);
        assert_eq!(FIND_ATTRIBUTE, 0xffff_f00c);
    }
}
