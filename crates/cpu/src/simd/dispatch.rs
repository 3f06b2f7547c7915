//! Compiles a function body for each instruction set, and dispatches to one at run time.

/// Defines functions that return the body compiled for a level; `S` is its instruction set. Type parameters are written
/// `[F: Bound, …]`, and constants after a semicolon: `[F: Bound; ROWS: usize]`. With `exact`, `S` has products of f32
/// only; with `paired`, products of pairs of bf16 and of bytes where the level has them; with `tiled`, of AMX tiles,
/// too (`Isa::TILED`).
///
/// The returned function is unsafe to call: the processor must have the level's instructions, which holds if `level()`
/// is at least that level, and the body's own contract must hold.
#[macro_export]
macro_rules! compiled {
    ($bodies:ident $($(#[$meta:meta])* $vis:vis fn $name:ident
        $([$($g:ident : $bound:path),* $(; $($c:ident : $ct:ty),*)?])?
        ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound,)* $($(const $c: $ct),*)?>)? (
            level: $crate::simd::Level,
        ) -> unsafe fn($($ty),*) $(-> $ret)? {
            #[inline(always)]
            // A body of integers does not use S's arithmetic.
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<S: $crate::simd::Isa $($(, $g: $bound)* $($(, const $c: $ct)*)?)?>(
                $($arg: $ty),*
            ) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                // AMX instructions are inline assembly and need no feature.
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512bf16,avx512vnni")]
                #[allow(dead_code)]
                fn amx $(<$($g: $bound,)* $($(const $c: $ct),*)?>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Amx $($(, $g)* $($(, $c)*)?)?>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512bf16,avx512vnni")]
                #[allow(dead_code)]
                fn avx512bf16 $(<$($g: $bound,)* $($(const $c: $ct),*)?>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Avx512Bf16 $($(, $g)* $($(, $c)*)?)?>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512 $(<$($g: $bound,)* $($(const $c: $ct),*)?>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Avx512 $($(, $g)* $($(, $c)*)?)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2 $(<$($g: $bound,)* $($(const $c: $ct),*)?>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Avx2 $($(, $g)* $($(, $c)*)?)?>($($arg),*)
                }
                match level {
                    // Products by tiles select AMX explicitly; otherwise this level equals the level of pairs.
                    $crate::simd::Level::Amx => {
                        return $crate::simd::select_body!(
                            $bodies,
                            amx $(::<$($g,)* $($($c),*)?>)?,
                            avx512bf16 $(::<$($g,)* $($($c),*)?>)?,
                            avx512 $(::<$($g,)* $($($c),*)?>)?
                        );
                    }
                    $crate::simd::Level::Avx512Bf16 => {
                        return $crate::simd::select_body!(
                            $bodies,
                            avx512bf16 $(::<$($g,)* $($($c),*)?>)?,
                            avx512bf16 $(::<$($g,)* $($($c),*)?>)?,
                            avx512 $(::<$($g,)* $($($c),*)?>)?
                        );
                    }
                    $crate::simd::Level::Avx512 => return avx512 $(::<$($g,)* $($($c),*)?>)?,
                    $crate::simd::Level::Avx2 => return avx2 $(::<$($g,)* $($($c),*)?>)?,
                    $crate::simd::Level::Baseline => {}
                }
            }
            let _ = level;
            body::<$crate::simd::Baseline $($(, $g)* $($(, $c)*)?)?>
        }
    )*};
}
pub use compiled;

/// The variant for tiles, for pairs or for f32, by keyword.
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
#[macro_export]
macro_rules! select_body {
    (tiled, $tiles:expr, $pairs:expr, $exact:expr) => {
        $tiles
    };
    (paired, $tiles:expr, $pairs:expr, $exact:expr) => {
        $pairs
    };
    (exact, $tiles:expr, $pairs:expr, $exact:expr) => {
        $exact
    };
}
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub use select_body;

/// Defines functions whose bodies are compiled for each instruction set `S`, and which call the one of the process's
/// level. Type parameters are written `[F: Bound, G: Bound]`.
#[macro_export]
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident $([$($g:ident : $bound:path),*])?
       ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
            $crate::simd::compiled! {
                exact fn at $([$($g: $bound),*])? ($($arg: $ty),*) $(-> $ret)? $body
            }
            // SAFETY: the processor has the instructions of `level()`, and such a body has no other requirement.
            unsafe { at $(::<$($g),*>)? ($crate::simd::level())($($arg),*) }
        }
    )*};
}
pub use vectorised;
