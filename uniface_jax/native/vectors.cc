// What callers must know of the vectors that this machine has.

#include "outer_products.h"

extern "C" int UnifaceVectorWidth() { return uniface::kWidth; }
