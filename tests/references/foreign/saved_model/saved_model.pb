Ñ
tE
C
Placeholder
output"dtype"
dtypetype"
shapeshape:"serve*2.21.02v2.21.0-rc1-5-ga481b10260d8Y
R
xPlaceholder*
_output_shapes

:*
dtype0*
shape
:"ª