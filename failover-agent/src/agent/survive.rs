//! A fault of the agent's own must not keep it from cleaning up.

use std::panic::AssertUnwindSafe;

use anyhow::{Result, anyhow};
use futures_util::FutureExt as _;

/// Makes an error of a panic.
pub(super) async fn survive<T>(life: impl Future<Output = Result<T>>) -> Result<T> {
    // What the panic has left half done is dropped, or belongs to the kernel, where the clean-up reads it again.
    let ended = AssertUnwindSafe(life).catch_unwind().await;
    ended.unwrap_or_else(|_| {
        Err(anyhow!(
            "the agent has ended by a fault of its own: see the panic above"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_like_others() {
        assert_eq!(survive(async { Ok(1) }).await.unwrap(), 1);
        assert!(
            survive(async { Err::<(), _>(anyhow!("refused")) })
                .await
                .is_err()
        );
        let panicking = async {
            tokio::task::yield_now().await;
            let none: Option<u8> = std::hint::black_box(None);
            Ok(none.unwrap())
        };
        let error = survive(panicking).await.unwrap_err().to_string();
        assert!(error.contains("see the panic above"), "{error}");
    }
}
