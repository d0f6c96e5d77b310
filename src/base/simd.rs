//! The one place outside `src/dpdk` with `unsafe`: prefetch hints and the index bucket's tag match, each with a safe
//! signature and a scalar twin that a test compares it with.
#![allow(unsafe_code, reason = "CPU intrinsics behind safe signatures; see each block")]

/// Hints that `value`'s cache line will be read soon. Never faults, changes nothing that a program can see.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is a hint; any address is allowed, and this one comes from a live reference. SSE is part of
    // the x86-64 baseline.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
