;; out = x · weightᵀ for x (n, inner), weight (outer, inner), out (n, outer): rows of 32-bit floats, inner a
;; multiple of 4. A tile of two rows of x and four of weight is held in eight sums of four lanes each; the
;; lanes are added up when the rows are at their end. What is left over, a last row of x or up to three of
;; weight, is computed by the same loop on a row that repeats: the tile is written only where it is inside.
(module
  (import "page" "memory" (memory 1))

  ;; Sum of the four lanes.
  (func $lanes (param $v v128) (result f32)
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $v)) (f32x4.extract_lane 1 (local.get $v)))
      (f32.add (f32x4.extract_lane 2 (local.get $v)) (f32x4.extract_lane 3 (local.get $v)))))

  (func (export "linear")
    (param $out i32) (param $x i32) (param $weight i32) (param $n i32) (param $inner i32) (param $outer i32)
    (local $i i32) (local $o i32) (local $k i32) (local $bytes i32) (local $place i32)
    (local $x0 i32) (local $x1 i32) (local $w0 i32) (local $w1 i32) (local $w2 i32) (local $w3 i32)
    (local $a v128) (local $b v128) (local $w v128)
    (local $s00 v128) (local $s01 v128) (local $s02 v128) (local $s03 v128)
    (local $s10 v128) (local $s11 v128) (local $s12 v128) (local $s13 v128)
    (local.set $bytes (i32.shl (local.get $inner) (i32.const 2)))
    (local.set $o (i32.const 0))
    (loop $columns
      (local.set $w0 (i32.add (local.get $weight) (i32.mul (local.get $o) (local.get $bytes))))
      (local.set $w1 (select (i32.add (local.get $w0) (local.get $bytes)) (local.get $w0)
        (i32.lt_u (i32.add (local.get $o) (i32.const 1)) (local.get $outer))))
      (local.set $w2 (select (i32.add (local.get $w1) (local.get $bytes)) (local.get $w1)
        (i32.lt_u (i32.add (local.get $o) (i32.const 2)) (local.get $outer))))
      (local.set $w3 (select (i32.add (local.get $w2) (local.get $bytes)) (local.get $w2)
        (i32.lt_u (i32.add (local.get $o) (i32.const 3)) (local.get $outer))))
      (local.set $i (i32.const 0))
      (loop $rows
        (local.set $x0 (i32.add (local.get $x) (i32.mul (local.get $i) (local.get $bytes))))
        (local.set $x1 (select (i32.add (local.get $x0) (local.get $bytes)) (local.get $x0)
          (i32.lt_u (i32.add (local.get $i) (i32.const 1)) (local.get $n))))
        (local.set $s00 (v128.const f32x4 0 0 0 0)) (local.set $s01 (v128.const f32x4 0 0 0 0))
        (local.set $s02 (v128.const f32x4 0 0 0 0)) (local.set $s03 (v128.const f32x4 0 0 0 0))
        (local.set $s10 (v128.const f32x4 0 0 0 0)) (local.set $s11 (v128.const f32x4 0 0 0 0))
        (local.set $s12 (v128.const f32x4 0 0 0 0)) (local.set $s13 (v128.const f32x4 0 0 0 0))
        (local.set $k (i32.const 0))
        (loop $along
          (local.set $a (v128.load (i32.add (local.get $x0) (local.get $k))))
          (local.set $b (v128.load (i32.add (local.get $x1) (local.get $k))))
          (local.set $w (v128.load (i32.add (local.get $w0) (local.get $k))))
          (local.set $s00 (f32x4.add (local.get $s00) (f32x4.mul (local.get $a) (local.get $w))))
          (local.set $s10 (f32x4.add (local.get $s10) (f32x4.mul (local.get $b) (local.get $w))))
          (local.set $w (v128.load (i32.add (local.get $w1) (local.get $k))))
          (local.set $s01 (f32x4.add (local.get $s01) (f32x4.mul (local.get $a) (local.get $w))))
          (local.set $s11 (f32x4.add (local.get $s11) (f32x4.mul (local.get $b) (local.get $w))))
          (local.set $w (v128.load (i32.add (local.get $w2) (local.get $k))))
          (local.set $s02 (f32x4.add (local.get $s02) (f32x4.mul (local.get $a) (local.get $w))))
          (local.set $s12 (f32x4.add (local.get $s12) (f32x4.mul (local.get $b) (local.get $w))))
          (local.set $w (v128.load (i32.add (local.get $w3) (local.get $k))))
          (local.set $s03 (f32x4.add (local.get $s03) (f32x4.mul (local.get $a) (local.get $w))))
          (local.set $s13 (f32x4.add (local.get $s13) (f32x4.mul (local.get $b) (local.get $w))))
          (br_if $along (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 16))) (local.get $bytes))))

        ;; The first column is inside always; the second row and the other columns where they are.
        (local.set $place (i32.add (local.get $out) (i32.shl
          (i32.add (i32.mul (local.get $i) (local.get $outer)) (local.get $o)) (i32.const 2))))
        (f32.store (local.get $place) (call $lanes (local.get $s00)))
        (if (i32.lt_u (i32.add (local.get $o) (i32.const 1)) (local.get $outer))
          (then (f32.store offset=4 (local.get $place) (call $lanes (local.get $s01)))))
        (if (i32.lt_u (i32.add (local.get $o) (i32.const 2)) (local.get $outer))
          (then (f32.store offset=8 (local.get $place) (call $lanes (local.get $s02)))))
        (if (i32.lt_u (i32.add (local.get $o) (i32.const 3)) (local.get $outer))
          (then (f32.store offset=12 (local.get $place) (call $lanes (local.get $s03)))))
        (if (i32.lt_u (i32.add (local.get $i) (i32.const 1)) (local.get $n))
          (then
            (local.set $place (i32.add (local.get $place) (i32.shl (local.get $outer) (i32.const 2))))
            (f32.store (local.get $place) (call $lanes (local.get $s10)))
            (if (i32.lt_u (i32.add (local.get $o) (i32.const 1)) (local.get $outer))
              (then (f32.store offset=4 (local.get $place) (call $lanes (local.get $s11)))))
            (if (i32.lt_u (i32.add (local.get $o) (i32.const 2)) (local.get $outer))
              (then (f32.store offset=8 (local.get $place) (call $lanes (local.get $s12)))))
            (if (i32.lt_u (i32.add (local.get $o) (i32.const 3)) (local.get $outer))
              (then (f32.store offset=12 (local.get $place) (call $lanes (local.get $s13)))))))
        (br_if $rows (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 2))) (local.get $n))))
      (br_if $columns (i32.lt_u (local.tee $o (i32.add (local.get $o) (i32.const 4))) (local.get $outer))))))
