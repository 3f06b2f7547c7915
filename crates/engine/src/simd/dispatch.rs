//! One body, compiled for each instruction set and chosen when it is called.

/// What a body may ask of the instruction set that it is compiled for.
pub trait Fma: Copy + Send + Sync + 'static {
    /// Whether a multiply-add is one instruction; without it `mul_add` is a slow library call.
    const FUSED: bool;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

#[derive(Clone, Copy)]
pub struct Fused;
#[derive(Clone, Copy)]
pub struct Baseline;

impl Fma for Fused {
    const FUSED: bool = true;
}
impl Fma for Baseline {
    const FUSED: bool = cfg!(target_arch = "aarch64");
}

/// Defines functions whose bodies are compiled for each instruction set, `S` being the one at
/// hand. Type parameters are written `[F: Bound, G: Bound]`.
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident $([$($g:ident : $bound:path),*])?
       ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            // A body of whole numbers has no use for the arithmetic of S.
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<S: $crate::simd::Fma $($(, $g: $bound)*)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512 $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Fused $($(, $g)*)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2 $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<$crate::simd::Fused $($(, $g)*)?>($($arg),*)
                }
                match $crate::simd::level() {
                    // The processor has what the bodies are compiled for.
                    $crate::simd::Level::Avx512 | $crate::simd::Level::Avx512Bf16 => {
                        return unsafe { avx512 $(::<$($g),*>)? ($($arg),*) };
                    }
                    $crate::simd::Level::Avx2 => return unsafe { avx2 $(::<$($g),*>)? ($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            body::<$crate::simd::Baseline $($(, $g)*)?>($($arg),*)
        }
    )*};
}
pub(crate) use vectorised;
